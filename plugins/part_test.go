package plugins_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

// part is the part of a dump that the file with this text is.
func part(what, path, format, text string) plugins.Part {
	sum := sha256.Sum256([]byte(text))
	return plugins.Part{What: what, Path: path, Format: format, Bytes: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}
}

func itoa(n int) string { return strconv.Itoa(n) }
