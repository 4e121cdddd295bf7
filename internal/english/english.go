// Package english keeps kubectl's packages from reading, each time that the
// program starts, the translations of texts of theirs that we do not show: half of
// what all packages together take to initialise. It does nothing else.
package english

import "k8s.io/kubectl/pkg/util/i18n"

// Packages are initialised in the order of their import paths, and those that
// print texts of kubectl's come after this one (k8s.io/kubectl/pkg/util/i18n,
// SetLoadTranslationsFunc, wants it so). Where it is too late, nothing is lost.
var _ = i18n.SetLoadTranslationsFunc(func() error { return nil })
