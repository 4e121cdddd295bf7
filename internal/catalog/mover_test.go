package catalog_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func TestSource(t *testing.T) {
	want := catalog.Source{Namespace: "shop", Claim: "data", Snapshot: "data-20261122-011500-x7k2", UID: "7d1f", Repository: "main"}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	spelled := `{"namespace":"shop","claim":"data","snapshot":"data-20261122-011500-x7k2","uid":"7d1f","repository":"main"}`
	if diff := cmp.Diff(spelled, string(text)); diff != "" {
		t.Errorf("annotation (-want +got):\n%s", diff)
	}
	got, err := catalog.ReadSource(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("read again (-want +got):\n%s", diff)
	}
}

func TestSourceOfAJobThatCopiesNothing(t *testing.T) {
	got, err := catalog.ReadSource("")
	if err != nil || got != (catalog.Source{}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestSourceThatCannotBeRead(t *testing.T) {
	if got, err := catalog.ReadSource("{"); err == nil {
		t.Errorf("got %+v", got)
	}
}
