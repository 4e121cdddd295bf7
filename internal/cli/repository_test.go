package cli_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

func (c *cluster) MoverPods(context.Context, string) ([]string, error) { return c.w.MoverPods, nil }

func (c *cluster) CreateNamespace(_ context.Context, n catalog.Meta, dry bool) (bool, error) {
	absent := c.w.Absent || slices.Contains(c.w.Gone, n.Name)
	if absent && !dry {
		c.did("create namespace %s", n.Name)
		c.change(func() {
			c.w.Absent = false
			c.w.Gone = slices.DeleteFunc(c.w.Gone, func(gone string) bool { return gone == n.Name })
		})
	}
	return absent, c.broken()
}

func (c *cluster) CreateSecret(_ context.Context, s catalog.Secret, dry bool) (bool, error) {
	r := s.Repository()
	made := worldRepository{Name: r.Name, Address: string(s.Data["RESTIC_REPOSITORY"]), Cluster: r.Cluster, Claim: r.Claim, Account: r.ServiceAccount, Values: map[string]string{}}
	for key, value := range s.Data {
		made.Values[key] = string(value)
	}
	for _, there := range c.w.Repositories {
		if there.Name != r.Name {
			continue
		}
		same := there.Claim == made.Claim && there.Account == made.Account && fmt.Sprint(there.Values) == fmt.Sprint(made.Values)
		if !same {
			return false, catalog.ErrTaken
		}
		return false, nil
	}
	if !dry {
		c.change(func() { c.w.Repositories = append(c.w.Repositories, made) })
	}
	return true, c.broken()
}

// tend is a mover that works on a repository as a whole.
func (c *cluster) tend(pod string, job restic.Job) restic.End {
	i := slices.IndexFunc(c.w.Repositories, func(r worldRepository) bool { return r.Name == job.Secret })
	r := &c.w.Repositories[i]
	env := map[string]string{}
	for _, e := range job.Env {
		env[e.Name] = e.Value
	}
	mode, code, errs, said := job.Args[0], r.Restic.Exit, 0, r.Restic.Says
	if r.Restic.At != "" && r.Restic.At != mode {
		code, said = 0, ""
	}
	answer := ""
	switch mode {
	case restic.StepList:
		answer, errs = r.listed(), r.Left
	case restic.StepStats:
		answer = `{"total_size":52428800,"total_uncompressed_size":104857600,"compression_ratio":2,"total_blob_count":7,"snapshots_count":` + strconv.Itoa(len(r.Copies)) + "}\n"
	case restic.StepUnlock:
		c.did("unlock as %q, pid %q, %v", job.Host, env["BACKSNAP_PID"], job.Args[5:])
		all := slices.Contains(job.Args, "--remove-all")
		c.change(func() {
			r.Locks = slices.DeleteFunc(r.Locks, func(l worldLock) bool { return all || l.Host == job.Host && env["BACKSNAP_PID"] == strconv.Itoa(l.PID) })
		})
		answer = r.locked()
	case restic.StepLocks:
		answer = r.locked()
	case restic.StepForget:
		c.did("forget %d in %s", len(job.Args[5:]), r.Name)
		c.change(func() {
			r.Copies = slices.DeleteFunc(r.Copies, func(s worldCopy) bool {
				return slices.Contains(job.Args[5:], s.ID+strings.Repeat("0", 56)) && !slices.Contains(r.Keeps, s.ID)
			})
		})
	case restic.StepPrune:
		c.did("prune %s %v", r.Name, job.Args[5:])
		said = "total prune: 3 blobs / 1.750 MiB"
	case restic.StepExamine:
		c.did("examine %v, wait %s, mark %q", job.Args[5:], job.Args[3], env["BACKSNAP_MARK"])
		if len(r.Locks) > 0 {
			l := r.Locks[0]
			code, said = 11, fmt.Sprintf(`{"message_type":"exit_error","code":11,"message":"Fatal: unable to create lock in backend: repository is already locked by PID %d on %s by root (UID 0, GID 0)\nlock was created at 2026-11-22 01:00:00 (15m0s ago)\nstorage ID 1234abcd\n"}`, l.PID, l.Host)
		} else {
			said = fmt.Sprintf(`{"message_type":"summary","num_errors":%d}`, r.Faults)
			if r.Faults > 0 {
				code, errs = 1, r.Faults
				said += "\n" + `{"message_type":"error","message":"pack 1234: does not exist"}`
			}
		}
	}
	if answer != "" {
		packed := pack(answer, env["BACKSNAP_NONCE"])
		if r.Cut {
			packed = packed[:len(packed)/2]
		}
		c.change(func() { c.said[pod] = "restic says something\n" + packed })
	}
	end := restic.End{Pod: pod, Exit: code, Text: fmt.Sprintf("backsnap step=%s exit=%d\nerrors=%d\n%s\n", mode, code, errs, said), Finished: c.now()}
	return end
}

// pack is text as a mover sends it.
func pack(text, nonce string) string {
	var zip bytes.Buffer
	w := gzip.NewWriter(&zip)
	w.Write([]byte(text))
	w.Close()
	var lines strings.Builder
	count := 0
	for rest := base64.StdEncoding.EncodeToString(zip.Bytes()); rest != ""; count++ {
		n := min(76, len(rest))
		lines.WriteString(rest[:n] + "\n")
		rest = rest[n:]
	}
	return fmt.Sprintf("backsnap answer %s begins\n%sbacksnap answer %s ends lines=%d bytes=%d sha256=%x\n", nonce, lines.String(), nonce, count, len(text), sha256.Sum256([]byte(text)))
}

func (r worldRepository) locked() string {
	var all strings.Builder
	all.WriteString(" ")
	for i, l := range r.Locks {
		fmt.Fprintf(&all, `{"id":"%064d","lock":{"time":"2026-11-22T01:00:00Z","exclusive":%v,"hostname":%q,"username":"root","pid":%d}}`+"\n", i, l.Exclusive, l.Host, l.PID)
	}
	return all.String()
}

func (r worldRepository) listed() string {
	list := []map[string]any{}
	for _, s := range r.Copies {
		tags := s.Tags
		if s.App != "" {
			one := restic.Snapshot{Tags: tags}
			record := catalog.Record{
				Version: 1, Run: catalog.Run(one.Tag("run")), App: s.App, Members: s.Members, Cut: s.Time,
				Claim: catalog.ClaimRecord{Name: one.Tag("pvc"), Driver: "csi.example.com", Capacity: 10 << 30, StorageClass: "fast"},
			}
			tag, err := record.Tag()
			if err != nil {
				panic(err)
			}
			tags = append(slices.Clone(tags), "record="+tag)
		}
		list = append(list, map[string]any{
			"id": s.ID + strings.Repeat("0", 56), "hostname": s.Host, "time": s.Time, "tags": tags,
			"summary": map[string]any{"backup_end": s.Time.Add(time.Minute), "total_bytes_processed": 1 << 30, "data_added_packed": 1 << 20},
		})
	}
	text, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	return string(text) + "\n"
}
