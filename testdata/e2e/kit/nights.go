package kit

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Nights are the restore points of one claim, one a night from first, with
// labels and record as the runs would have set them; each name is its day. They
// are real: the storage has made a snapshot for each.
func Nights(t testing.TB, namespace, claim string, first time.Time, count int) {
	t.Helper()
	uid := Kubectl(t, "get", "pvc", claim, "-n", namespace, "-o", "jsonpath={.metadata.uid}")
	var taken []catalog.Snapshot
	var manifests strings.Builder
	for night := range count {
		cut := first.AddDate(0, 0, night)
		s := catalog.Snapshot{
			Namespace: namespace, Name: claim + "-" + cut.Format(time.DateOnly), Claim: claim, Run: catalog.Run(cut.Format("20060102-150405") + "-aaaa"),
			Consistency: catalog.Crash, Retain: "calendar", Ready: true,
		}
		s.Periods = catalog.FreePeriods(cut, []string{claim}, taken)
		s.Record = &catalog.Record{
			Version: catalog.RecordVersion, Run: s.Run, App: "pvc/" + claim, Members: []string{claim}, TimeZone: "UTC", Consistency: catalog.Crash, Cut: cut,
			Claim: catalog.ClaimRecord{Name: claim, UID: uid},
		}
		taken = append(taken, s)
		notes, err := s.Annotations()
		if err != nil {
			t.Fatal(err)
		}
		metadata, err := json.Marshal(map[string]any{"namespace": namespace, "name": s.Name, "labels": s.Labels(), "annotations": notes})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&manifests, "---\n"+`{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: %s, spec: {volumeSnapshotClassName: btrfs, source: {persistentVolumeClaimName: %s}}}`+"\n", metadata, claim)
	}
	Apply(t, manifests.String(), "apply", "--server-side", "-f", "-")
	Until(t, "snapshots to be ready", func() string {
		ready := strings.Count(Kubectl(t, "get", "volumesnapshot", "-n", namespace, "-o", "jsonpath={.items[*].status.readyToUse}"), "true")
		if ready != count {
			return fmt.Sprintf("%d of %d", ready, count)
		}
		return ""
	})
}
