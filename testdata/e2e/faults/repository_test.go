package faults_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// setSecret sets entries of the repository's Secret.
func setSecret(t *testing.T, repository kit.Repository, entries map[string]string) {
	t.Helper()
	change, err := json.Marshal(map[string]any{"stringData": entries})
	if err != nil {
		t.Fatal(err)
	}
	kit.Kubectl(t, "patch", "secret", repository.Name, "-n", repository.Namespace, "--type", "merge", "-p", string(change))
}

// TestBadDaysOfARepository: the database is well, its repository is not. The
// snapshot stands on each of these days.
func TestBadDaysOfARepository(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	db := kit.Postgres(t, kit.Namespace(t), "postgres", kit.Options{})
	writer := kit.Write(t, db)
	door := kit.NewDoor(t)
	address := func(server, path string) map[string]string {
		return map[string]string{"RESTIC_REPOSITORY": "s3:" + server + "/" + repository.Bucket + path, "RESTIC_PASSWORD": repository.Password}
	}
	own := address("http://s3.backup-storage.svc:9000", "")
	args := []string{"-n", db.Namespace, "--backup-namespace", repository.Namespace}
	check := func(t *testing.T, day kit.Day, r kit.Result) {
		t.Helper()
		day.Group = "Repository"
		item := day.Check(t, writer, r).Of(t, db.Claim())
		if item.State != "Protected" || item.Consistency != "application" || len(item.Copies) != 1 || (item.Copies[0].State == "Ok") != (day.Exit == 0) {
			t.Errorf("item %+v", item)
		}
	}
	snapshot := append([]string{"snapshot", "-o", "json"}, args...)

	t.Run("missing", func(t *testing.T) {
		setSecret(t, repository, address("http://s3.backup-storage.svc:9000", "/nothing/here"))
		check(t, kit.Day{What: "repository missing", Exit: 3, Code: "BS051", Says: []string{"repo init main"}}, kit.Backsnap(t, snapshot...))
	})
	t.Run("wrong password", func(t *testing.T) {
		setSecret(t, repository, own)
		setSecret(t, repository, map[string]string{"RESTIC_PASSWORD": "another"})
		check(t, kit.Day{What: "wrong repository password", Exit: 3, Code: "BS053", Says: []string{"RESTIC_PASSWORD"}}, kit.Backsnap(t, snapshot...))
	})
	t.Run("S3 comes back", func(t *testing.T) {
		setSecret(t, repository, address(door.Address(), ""))
		door.Shut(t)
		_, wait := kit.Background(t, snapshot...)
		moverRuns(t, repository.Namespace)
		door.Open(t)
		check(t, kit.Day{What: "S3 down when the copy begins, then back"}, wait())
	})
	t.Run("S3 down for a minute", func(t *testing.T) {
		kit.All(t)
		server := kit.NewS3Server(t)
		setSecret(t, repository, address(server.Address(), ""))
		kit.Must(t, "repo", "init", repository.Name, "--backup-namespace", repository.Namespace)
		empty := server.Files(t)
		kit.Exec(t, db.Namespace, db.Pod(), "head -c 100000000 /dev/urandom >"+postgresData+"/noise")
		_, wait := kit.Background(t, snapshot...)
		kit.Until(t, "the upload to begin", func() string {
			if server.Files(t) > empty+1 {
				return ""
			}
			return "nothing is uploaded"
		})
		server.Down(t)
		time.Sleep(time.Minute) // that is the day
		server.Up(t)
		check(t, kit.Day{What: "S3 down for a minute, then back"}, wait())
	})
	t.Run("S3 down for good", func(t *testing.T) {
		kit.All(t)
		setSecret(t, repository, address(door.Address(), ""))
		door.Shut(t)
		check(t, kit.Day{What: "S3 down for good", Exit: 3, Code: "BS055", Says: []string{"did not answer"}}, kit.Backsnap(t, snapshot...))
	})
	t.Run("locked", func(t *testing.T) {
		kit.All(t)
		setSecret(t, repository, own)
		repository.Lock(t)
		check(t, kit.Day{What: "repository locked", Exit: 3, Code: "BS052", Says: []string{"lock"}}, kit.Backsnap(t, snapshot...))
	})
	t.Run("append-only", func(t *testing.T) {
		setSecret(t, repository, map[string]string{"RESTIC_REPOSITORY": kit.RestServer(t, "--append-only"), "RESTIC_PASSWORD": repository.Password})
		kit.Must(t, "repo", "init", repository.Name, "--backup-namespace", repository.Namespace)
		check(t, kit.Day{What: "repository append-only"}, kit.Backsnap(t, snapshot...))
	})
	t.Run("full", func(t *testing.T) {
		kit.All(t)
		setSecret(t, repository, map[string]string{"RESTIC_REPOSITORY": kit.RestServer(t, "--max-size", "100000"), "RESTIC_PASSWORD": repository.Password})
		kit.Must(t, "repo", "init", repository.Name, "--backup-namespace", repository.Namespace)
		check(t, kit.Day{What: "repository full", Exit: 3, Code: "BS055"}, kit.Backsnap(t, snapshot...))
	})
	db.NoParts(t)
}

// moverRuns waits until a mover's pod runs.
func moverRuns(t *testing.T, namespace string) {
	t.Helper()
	kit.Until(t, "a mover to run", func() string {
		pods := kit.Kubectl(t, "get", "pods", "-n", namespace, "-l", "backsnap.sh/role=mover", "-o", "jsonpath={.items[*].status.phase}")
		if strings.Contains(pods, "Running") {
			return ""
		}
		return "pods: " + pods
	})
}
