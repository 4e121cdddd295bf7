package restic_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

const run = catalog.Run("20261122-011500-x7k2")

func snapshot() catalog.Snapshot {
	cut := time.Date(2026, 11, 22, 2, 15, 42, 123456789, time.FixedZone("CET", 3600))
	return catalog.Snapshot{
		Namespace: "shop", Name: "data-mysql-0-20261122-011500-x7k2", UID: "5a1c", Claim: "data-mysql-0", Run: run,
		Consistency: catalog.Application, Retain: "days", Cut: cut, Ready: true,
		Record: &catalog.Record{
			Version: 1, Run: run, App: "statefulset/mysql", Members: []string{"binlog-mysql-0", "data-mysql-0"}, TimeZone: "UTC",
			Claim: catalog.ClaimRecord{Name: "data-mysql-0", UID: "c1a1", Capacity: 1 << 30, NodeAffinity: json.RawMessage(`{"required":{}}`)},
			Dumps: []catalog.Dump{{What: "shop", Path: ".backsnap-1.dump", Bytes: 5, SHA256: "ab"}},
			Cut:   cut.UTC(),
		},
	}
}

func backup(s catalog.Snapshot) restic.Backup {
	return restic.Backup{
		Namespace: "backsnap", Name: "data-mysql-0-0a1b2c3d-20261122-011500-x7k2", Run: run, Image: restic.DefaultImage,
		Repository: catalog.Repository{Name: "main", Namespace: "backsnap", Secret: "main-secret", Cluster: "prod-eu"},
		Snapshot:   s, Claim: "clone", NodeAffinity: json.RawMessage(`{"required":{}}`), Deadline: 24 * time.Hour,
		Locks: restic.Locks{Retry: restic.DefaultRetryLock, Mark: "-0a1b2c"},
	}
}

func TestBackupJob(t *testing.T) {
	job, dropped, err := backup(snapshot()).Job()
	must(t, err)
	record, err := snapshot().Record.Tag()
	must(t, err)
	equal(t, "dropped", []string(nil), dropped)
	if script := job.Command[2]; !strings.HasPrefix(script, "# What a mover runs") || strings.Contains(script, "shop") {
		t.Errorf("the command is not the constant wrapper: %q", script)
	}
	job.Command = slices.Replace(job.Command, 2, 3, "SCRIPT")
	annotations := catalog.HandsOff()
	annotations["backsnap.sh/source"] = `{"namespace":"shop","claim":"data-mysql-0","snapshot":"data-mysql-0-20261122-011500-x7k2","uid":"5a1c","repository":"main"}`
	equal(t, "job", restic.Job{
		Namespace: "backsnap", Name: "data-mysql-0-0a1b2c3d-20261122-011500-x7k2",
		Labels: map[string]string{
			"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/role": "mover", "backsnap.sh/run": "20261122-011500-x7k2",
			"backsnap.sh/namespace": "shop", "backsnap.sh/pvc": "data-mysql-0",
		},
		Annotations: annotations,
		Image:       "docker.io/restic/restic:0.19.1",
		Command:     []string{"/bin/sh", "-c", "SCRIPT", "backsnap"},
		Args: []string{
			"backup", "60", "86400", "10m0s",
			"backup", "--json",
			"--host", "prod-eu/shop/data-mysql-0", "--time", "2026-11-22 01:15:42",
			"--tag", "backsnap", "--tag", "ns=shop", "--tag", "pvc=data-mysql-0", "--tag", "uid=c1a1",
			"--tag", "snapshot=data-mysql-0-20261122-011500-x7k2", "--tag", "vsuid=5a1c", "--tag", "run=20261122-011500-x7k2",
			"--tag", "app=statefulset/mysql", "--tag", "set=2", "--tag", "consistency=application", "--tag", "retain=days",
			"--tag", "record=" + record,
			"/data",
		},
		Env: []restic.Env{
			{Name: "RESTIC_CACHE_DIR", Value: "/cache"},
			{Name: "RESTIC_PROGRESS_FPS", Value: "0.5"}, {Name: "TZ", Value: "UTC"}, {Name: "TMPDIR", Value: "/tmp"},
			{Name: "BACKSNAP_NAMESPACE", Value: "shop"}, {Name: "BACKSNAP_COPY", Value: "vsuid=5a1c"}, {Name: "BACKSNAP_MARK", Value: "-0a1b2c"},
		},
		Secret: "main-secret", Claim: "clone", NodeAffinity: json.RawMessage(`{"required":{}}`),
		Pod:      restic.Pod{CPU: "100m", Memory: "256Mi", MemoryLimit: "1Gi", Keep: 7 * 24 * time.Hour},
		Deadline: 24*time.Hour + 30*time.Minute,
	}, job)
}

func TestUploadLimit(t *testing.T) {
	b := backup(snapshot())
	b.UploadLimit = 512
	job, _, err := b.Job()
	must(t, err)
	if i := slices.Index(job.Args, "--limit-upload"); i < 0 || job.Args[i+1] != "512" {
		t.Errorf("no upload limit among the arguments: %q", job.Args)
	}
}

// Of a device restic would store the name alone: it reads the image that a
// program writes. A slot is a label.
func TestBackupJobOfABlockVolume(t *testing.T) {
	s := snapshot()
	s.Record.Claim.VolumeMode = "Block"
	b := backup(s)
	b.Slot = "1"
	job, _, err := b.Job()
	must(t, err)
	equal(t, "device", true, job.Block)
	equal(t, "slot", "1", job.Labels["backsnap.sh/slot"])
	equal(t, "end of the arguments", []string{"--stdin-filename", "/data", "--stdin-from-command", "--", "cat", "/data"}, job.Args[len(job.Args)-6:])
}

func TestInitJob(t *testing.T) {
	job, err := restic.Work{
		Step: restic.StepInit, Namespace: "backsnap", Name: "init-main", Image: "img", Run: run, For: "shop", Deadline: time.Minute,
		Repository: catalog.Repository{Name: "main", Secret: "main-secret"},
	}.Job()
	must(t, err)
	equal(t, "arguments", []string{"init", "60", "60", "0s", "init", "--json"}, job.Args)
	equal(t, "claim", "", job.Claim)
	equal(t, "end of the environment", []restic.Env{{Name: "BACKSNAP_NAMESPACE", Value: "shop"}, {Name: "BACKSNAP_MARK"}}, job.Env[len(job.Env)-2:])
	equal(t, "labels", map[string]string{
		"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/role": "mover", "backsnap.sh/run": "20261122-011500-x7k2",
	}, job.Labels)
}

func TestRecordTag(t *testing.T) {
	hashes := func(n int) (dumps []catalog.Dump) {
		for i := range n { // numbers that gzip can do little with
			dumps = append(dumps, catalog.Dump{What: fmt.Sprint("database ", i), SHA256: fmt.Sprintf("%x", []byte(fmt.Sprint(i*7919, i*104729, i*1299709)))})
		}
		return dumps
	}
	zones := func(n int) json.RawMessage {
		var names []string
		for _, d := range hashes(n) {
			names = append(names, d.SHA256)
		}
		text, err := json.Marshal(map[string]any{"required": names})
		must(t, err)
		return text
	}
	const affinity, list = "the volume's node affinity", "the list of dumps"
	tests := []struct {
		name           string
		affinity       json.RawMessage
		dumps, members int
		dropped        []string
		fails          bool
	}{
		{name: "a short record is whole", affinity: zones(1), dumps: 2},
		{name: "a long one goes without node affinity", affinity: zones(400), dumps: 2, dropped: []string{affinity}},
		{name: "then without the list of dumps", affinity: zones(1), dumps: 400, dropped: []string{affinity, list}},
		{name: "without node affinity only the list of dumps can go", dumps: 400, dropped: []string{list}},
		{name: "one that is longer still is an error", members: 2000, dumps: 1, fails: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := snapshot()
			s.Record.Claim.NodeAffinity, s.Record.Dumps = test.affinity, hashes(test.dumps)
			for _, d := range hashes(test.members) {
				s.Record.Members = append(s.Record.Members, d.SHA256)
			}
			before := *s.Record
			job, dropped, err := backup(s).Job()
			if test.fails {
				if err == nil {
					t.Fatal("no error")
				}
				return
			}
			must(t, err)
			equal(t, "dropped", test.dropped, dropped)
			equal(t, "record of the snapshot", before, *s.Record)
			tag := job.Args[len(job.Args)-2]
			if len(tag) > 4096 {
				t.Errorf("the tag has %d bytes", len(tag))
			}
			got, err := catalog.ReadTag(strings.TrimPrefix(tag, "record="))
			must(t, err)
			if slices.Contains(dropped, affinity) {
				before.Claim.NodeAffinity = nil
			}
			if slices.Contains(dropped, list) {
				before.Dumps = nil
			}
			equal(t, "record", before, *got)
		})
	}
}

func TestTagsHoldNoComma(t *testing.T) {
	s := snapshot()
	s.Record.App = "statefulset/a,statefulset/b"
	for _, tag := range restic.Tags(s) {
		if strings.Contains(tag, ",") {
			t.Errorf("restic splits the tag %q", tag)
		}
	}
}

func TestBackupOfASnapshotWithoutCut(t *testing.T) {
	s := snapshot()
	s.Cut = time.Time{}
	if _, _, err := backup(s).Job(); err == nil {
		t.Error("no error: restic would say that the data is of now")
	}
}

func TestBackupOfASnapshotWithoutRecord(t *testing.T) {
	s := snapshot()
	s.Record = nil
	job, dropped, err := backup(s).Job()
	must(t, err)
	equal(t, "dropped", []string(nil), dropped)
	equal(t, "end of the arguments", []string{"--tag", "consistency=application", "--tag", "retain=days", "/data"}, job.Args[len(job.Args)-5:])
}
