package catalog_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func fullRecord(t *testing.T) catalog.Record {
	t.Helper()
	return catalog.Record{
		Version: 1, Run: run, App: "statefulset/mysql", Members: []string{"binlog-mysql-0", "data-mysql-0"},
		Claim: catalog.ClaimRecord{
			Name: "data-mysql-0", UID: "0e1b", Request: 50 << 30, Capacity: 50 << 30, StorageClass: "gp3", Driver: "ebs.csi.aws.com",
			AccessModes: []string{"ReadWriteOnce"}, VolumeMode: "Filesystem", FileSystem: "ext4",
			NodeAffinity: json.RawMessage(`{"required":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"topology.kubernetes.io/zone","operator":"In","values":["eu-central-1a"]}]}]}}`),
		},
		SnapshotClass: "ebs-snap", RestoreSize: 50 << 30, TimeZone: "Europe/Berlin",
		Consistency: catalog.Application, Reason: "proven dump of mysql in data-mysql-0", Plugin: "mysql", Mode: "dump", Pod: "mysql-0", Container: "mysql",
		Tool: "mysqldump 8.4.3", Server: "mysql 8.4.3", Position: "binlog.000042:157", Barrier: "FLUSH BINARY LOGS",
		Dumps:     []catalog.Dump{{What: "databases", Path: ".backsnap-20261122-011500-x7k2-1.dump", Bytes: 2254857830, SHA256: strings.Repeat("0f", 32)}},
		Requested: ns(t, "2026-11-22T01:15:42Z"), Cut: ns(t, "2026-11-22T01:15:42.123456789Z"), Ready: ns(t, "2026-11-22T01:15:48.5Z"), Dumped: ns(t, "2026-11-22T01:15:41Z"),
	}
}

// The keys are a contract: they are read for as long as there are snapshots.
func TestRecordSpelling(t *testing.T) {
	r := fullRecord(t)
	r.Claim.NodeAffinity = json.RawMessage(`{"required":{}}`)
	got, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
 "version": 1,
 "run": "20261122-011500-x7k2",
 "app": "statefulset/mysql",
 "members": [
  "binlog-mysql-0",
  "data-mysql-0"
 ],
 "claim": {
  "name": "data-mysql-0",
  "uid": "0e1b",
  "request": 53687091200,
  "capacity": 53687091200,
  "storageClass": "gp3",
  "driver": "ebs.csi.aws.com",
  "accessModes": [
   "ReadWriteOnce"
  ],
  "volumeMode": "Filesystem",
  "fileSystem": "ext4",
  "nodeAffinity": {
   "required": {}
  }
 },
 "snapshotClass": "ebs-snap",
 "restoreSize": 53687091200,
 "timeZone": "Europe/Berlin",
 "consistency": "application",
 "reason": "proven dump of mysql in data-mysql-0",
 "plugin": "mysql",
 "mode": "dump",
 "pod": "mysql-0",
 "container": "mysql",
 "tool": "mysqldump 8.4.3",
 "serverVersion": "mysql 8.4.3",
 "position": "binlog.000042:157",
 "barrier": "FLUSH BINARY LOGS",
 "dumps": [
  {
   "what": "databases",
   "path": ".backsnap-20261122-011500-x7k2-1.dump",
   "bytes": 2254857830,
   "sha256": "` + strings.Repeat("0f", 32) + `"
  }
 ],
 "requested": "2026-11-22T01:15:42Z",
 "cut": "2026-11-22T01:15:42.123456789Z",
 "ready": "2026-11-22T01:15:48.5Z",
 "dumped": "2026-11-22T01:15:41Z"
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestReadRecord(t *testing.T) {
	want := fullRecord(t)
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := catalog.ReadRecord(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("read again (-want +got):\n%s", diff)
	}
	if got, err := catalog.ReadRecord(""); got != nil || err != nil {
		t.Errorf("no record: %+v, %v", got, err)
	}
}

func TestReadRecordRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"a newer version": `{"version":2,"claim":{"name":"data"}}`, "no version": `{"claim":{"name":"data"}}`, "a negative one": `{"version":-1,"claim":{"name":"data"}}`,
		"no claim": `{"version":1}`, "no JSON": "backsnap", "cut-off JSON": `{"version":1,"run":"2026`, "null": "null", "a list": "[]",
	} {
		if got, err := catalog.ReadRecord(text); err == nil {
			t.Errorf("%s is read as %+v", name, got)
		}
	}
}

func TestTag(t *testing.T) {
	want := fullRecord(t)
	tag, err := want.Tag()
	if err != nil {
		t.Fatal(err)
	}
	// restic splits tags at commas and shells at much else.
	if !regexp.MustCompile(`^[A-Za-z0-9_-]+$`).MatchString(tag) {
		t.Errorf("tag %q holds more than letters, digits, - and _", tag)
	}
	got, err := catalog.ReadTag(tag)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("read again (-want +got):\n%s", diff)
	}
}

// restic is known to store tags of 4 KB whole: a server with 25 databases fits.
func TestTagIsShort(t *testing.T) {
	r := fullRecord(t)
	for i := range 25 {
		r.Dumps = append(r.Dumps, catalog.Dump{What: fmt.Sprintf("database customer_%04d", i*7919), Path: fmt.Sprintf("pgdata/.backsnap-%s-%d.dump", run, i), Bytes: int64(i) << 20, SHA256: fmt.Sprintf("%064x", uint64(i+1)*0x9e3779b97f4a7c15)})
	}
	tag, err := r.Tag()
	if err != nil || len(tag) > 4096-len("record=") {
		t.Errorf("the tag takes %d bytes, %v", len(tag), err)
	}
}

func pack(t *testing.T, text string) string {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(packed.Bytes())
}

func TestReadTagRefuses(t *testing.T) {
	r := fullRecord(t)
	whole, err := r.Tag()
	if err != nil {
		t.Fatal(err)
	}
	for name, tag := range map[string]string{
		"no base64": "!", "no gzip": "aGFsbG8", "one that was cut": whole[:len(whole)/2], "one whose last byte is missing": whole[:len(whole)-2],
		"a newer version": pack(t, `{"version":2,"claim":{"name":"data"}}`), "nothing": "", "an empty text": pack(t, ""),
		"one that unpacks to more than a record can be": pack(t, `{"version":1,"claim":{"name":"data"}}`+strings.Repeat(" ", 2<<20)+"x"),
	} {
		if got, err := catalog.ReadTag(tag); err == nil {
			t.Errorf("%s is read as %+v", name, got)
		}
	}
}
