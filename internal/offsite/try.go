package offsite

import (
	"context"
	"errors"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// Trial is what would be made for one copy.
type Trial struct {
	Copy  Copy
	Clone catalog.Claim
	Job   restic.Job
}

// Trials are what Run would make for each copy that is not on record nor on its way, as far
// as it is known before there is a snapshot: the clone and the mover. Nothing
// is made. The error joins why some copies cannot be made.
func Trials(ctx context.Context, c Cluster, now func() time.Time, p Plan, w catalog.Watcher) ([]Trial, error) {
	classes := &classes{cluster: c, known: map[string]catalog.StorageClass{}}
	var trials []Trial
	var errs []error
	for i, copy := range p.Copies {
		if copy.Recorded || copy.Adopted != "" {
			continue
		}
		m := &making{cluster: c, now: now, request: p.Request, copy: copy, slot: p.Request.slot(i), watcher: w, classes: classes}
		clone, err := m.clone(ctx)
		if err != nil {
			errs = append(errs, m.failed(err))
			continue
		}
		job, err := m.job()
		if err != nil {
			errs = append(errs, m.failed(err))
			continue
		}
		trials = append(trials, Trial{Copy: copy, Clone: clone, Job: job})
	}
	return trials, errors.Join(errs...)
}
