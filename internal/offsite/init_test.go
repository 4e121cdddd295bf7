package offsite_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// fresh is a repository that no cluster has named yet.
func fresh() catalog.Repository {
	r := repository("main")
	r.Cluster = ""
	return r
}

func initRequest(r catalog.Repository) offsite.InitRequest {
	return offsite.InitRequest{Run: run, Repository: r, Image: offsite.DefaultImage, Deadline: time.Minute}
}

// says is a mover that ends like that.
func says(end restic.End) func(context.Context, func(restic.Sight)) (restic.End, error) {
	return func(context.Context, func(restic.Sight)) (restic.End, error) { return end, nil }
}

func TestInit(t *testing.T) {
	tests := []struct {
		name        string
		repository  catalog.Repository
		clusterName string
		secret      string // what stands on it meanwhile
		end         restic.End
		existed     bool
		cluster     string
		calls       []string
	}{
		{
			name: "a new one, named after kube-system", repository: fresh(), end: ends(0, "init", 0),
			cluster: "41d493cf", calls: []string{"start", "follow", "remove mover", "uid", "name 41d493cf"},
		},
		{
			name: "a new one with a name", repository: fresh(), clusterName: "prod-eu", end: ends(0, "init", 0),
			cluster: "prod-eu", calls: []string{"start", "follow", "remove mover", "name prod-eu"},
		},
		{
			name: "one that is there and has no name", repository: fresh(), end: ends(0, "check", 0), existed: true,
			cluster: "41d493cf", calls: []string{"start", "follow", "remove mover", "uid", "name 41d493cf"},
		},
		{
			name: "one that is there and has one", repository: repository("main"), end: ends(0, "check", 0), existed: true,
			cluster: "prod-eu", calls: []string{"start", "follow", "remove mover"},
		},
		{
			name: "somebody else was quicker with the name", repository: fresh(), clusterName: "mine", secret: "theirs", end: ends(0, "init", 0),
			cluster: "theirs", calls: []string{"start", "follow", "remove mover", "name mine"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			c.follow[""], c.cluster = says(test.end), test.secret
			r := initRequest(test.repository)
			r.ClusterName = test.clusterName
			got, err := offsite.Init(t.Context(), c, at, r, &events{})
			if err != nil {
				t.Fatal(err)
			}
			want := offsite.Initialised{Repository: test.repository, Existed: test.existed}
			want.Repository.Cluster = test.cluster
			equal(t, "initialised", want, got)
			equal(t, "calls", test.calls, c.diary[""])
			equal(t, "left", []string(nil), c.left())
		})
	}
}

func TestInitThatFails(t *testing.T) {
	tests := []struct {
		name string
		end  restic.End
		code catalog.Code
		says string
	}{
		{"another password", ends(12, "check", 0), catalog.CodeRepoPassword, "repository main not initialised: the password is wrong"},
		{"no right", ends(1, "init", 0, "Fatal: denied"), catalog.CodeMover, "repository main not initialised: exit 1: Fatal: denied"},
		{"a mover that says nothing", restic.End{Pod: "p"}, catalog.CodeMover, "repository main not initialised: restic ended without a summary"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			c.follow[""] = says(test.end)
			_, err := offsite.Init(t.Context(), c, at, initRequest(fresh()), &events{})
			if err == nil {
				t.Fatal("no error")
			}
			equal(t, "code", test.code, catalog.CodeOf(err))
			equal(t, "error", test.says, err.Error())
			equal(t, "calls: the Secret is left alone", []string{"start", "follow", "remove mover"}, c.diary[""])
		})
	}
}

func TestInitThatMakesNoSense(t *testing.T) {
	each := repository("main")
	each.Address = "s3:host/{namespace}"
	tests := []struct {
		name    string
		request offsite.InitRequest
	}{
		{"a cluster's name with a slash", offsite.InitRequest{Repository: fresh(), ClusterName: "eu/prod"}},
		{"a cluster's name with a comma", offsite.InitRequest{Repository: fresh(), ClusterName: "eu,prod"}},
		{"another name than stands there", offsite.InitRequest{Repository: repository("main"), ClusterName: "other"}},
		{"an address for each namespace, and no namespace", offsite.InitRequest{Repository: each}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			_, err := offsite.Init(t.Context(), c, at, test.request, &events{})
			equal(t, "code", catalog.CodeUsage, catalog.CodeOf(err))
			equal(t, "calls", []string(nil), c.diary[""])
		})
	}
}

func TestInitForANamespace(t *testing.T) {
	c := newCluster(t)
	c.follow[""] = says(ends(0, "init", 0))
	r := initRequest(repository("main"))
	r.Repository.Address, r.Namespace = "s3:host/{namespace}", "shop"
	if _, err := offsite.Init(t.Context(), c, at, r, &events{}); err != nil {
		t.Fatal(err)
	}
	job := c.jobs["init-main"+restic.Mark(r.Repository)+"-"+string(run)]
	equal(t, "environment", restic.Env{Name: "BACKSNAP_NAMESPACE", Value: "shop"}, job.Env[len(job.Env)-2])
}

func TestInterruptOfInitRemovesItsMover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.follow[""] = stays
		interrupt := errors.New("interrupt")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, interrupt)
		defer cancel()
		_, err := offsite.Init(ctx, c, at, initRequest(fresh()), &events{})
		equal(t, "code", catalog.CodeInterrupted, catalog.CodeOf(err))
		equal(t, "calls", []string{"start", "follow", "remove mover"}, c.diary[""])
		equal(t, "left", []string(nil), c.left())
	})
}
