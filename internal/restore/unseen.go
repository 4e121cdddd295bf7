package restore

import (
	"context"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// unseen is err, which says that there is no copy to take; or, where the caller
// may not see what repositories there are, that.
func unseen(ctx context.Context, c Cluster, r Request, repositories []catalog.Repository, err error) error {
	if err == nil || r.From.Kind != Copy || len(repositories) > 0 {
		return err
	}
	lacking, asked := c.Missing(ctx, []catalog.Right{{Verb: "list", Resource: "secrets", Namespace: r.BackupNamespace}})
	if asked != nil || len(lacking) == 0 {
		return err
	}
	return missing(lacking)
}
