package kube

import (
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func TestMissing(t *testing.T) {
	exec := catalog.Right{Verb: "create", Resource: "pods/exec", Namespace: "shop"}
	create := catalog.Right{Verb: "create", Group: snapshotGroup, Resource: "volumesnapshots", Namespace: "shop"}
	elsewhere := catalog.Right{Verb: "create", Group: snapshotGroup, Resource: "volumesnapshots", Namespace: "crm"}
	contents := catalog.Right{Verb: "get", Group: snapshotGroup, Resource: "volumesnapshotcontents"}
	rule := func(verb, group, resource string, names ...string) authorizationv1.ResourceRule {
		return authorizationv1.ResourceRule{Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: names}
	}
	for _, test := range []struct {
		name       string
		rules      []authorizationv1.ResourceRule // in shop
		incomplete bool
		allowed    []catalog.Right // by a single question
		want       []catalog.Right
		questions  int // about single rights
	}{
		{"all there", []authorizationv1.ResourceRule{rule("create", "", "pods/exec"), rule("create", snapshotGroup, "volumesnapshots")}, false, []catalog.Right{contents}, []catalog.Right{elsewhere}, 1},
		{"nothing there, in order", nil, false, nil, []catalog.Right{contents, exec, create, elsewhere}, 1},
		{"an administrator", []authorizationv1.ResourceRule{rule("*", "*", "*")}, false, []catalog.Right{contents}, []catalog.Right{elsewhere}, 1},
		{"a subresource of anything", []authorizationv1.ResourceRule{rule("create", "", "*/exec")}, false, nil, []catalog.Right{contents, create, elsewhere}, 1},
		{"the resource is not its subresource", []authorizationv1.ResourceRule{rule("create", "", "pods")}, false, nil, []catalog.Right{contents, exec, create, elsewhere}, 1},
		{"one object is not all", []authorizationv1.ResourceRule{rule("create", "", "pods/exec", "mysql-0")}, false, nil, []catalog.Right{contents, exec, create, elsewhere}, 1},
		{"another verb, another group", []authorizationv1.ResourceRule{rule("get", "", "pods/exec"), rule("create", "", "volumesnapshots")}, false, nil, []catalog.Right{contents, exec, create, elsewhere}, 1},
		{"an authorizer that lists nothing is asked one by one", []authorizationv1.ResourceRule{rule("create", "", "pods/exec")}, true, []catalog.Right{create}, []catalog.Right{contents, elsewhere}, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakes(nil, nil)
			f.core.PrependReactor("create", "selfsubjectrulesreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
				r := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectRulesReview).DeepCopy()
				r.Status.Incomplete = test.incomplete
				if r.Spec.Namespace == "shop" {
					r.Status.ResourceRules = test.rules
				}
				return true, r, nil
			})
			f.core.PrependReactor("create", "selfsubjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
				r := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview).DeepCopy()
				asked := r.Spec.ResourceAttributes
				for _, right := range test.allowed {
					if (authorizationv1.ResourceAttributes{Namespace: right.Namespace, Verb: right.Verb, Group: right.Group, Resource: right.Resource}) == *asked {
						r.Status.Allowed = true
					}
				}
				return true, r, nil
			})
			got, err := f.Missing(t.Context(), []catalog.Right{contents, exec, create, elsewhere})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "missing", test.want, got)
			questions := 0
			for _, action := range f.core.Actions() {
				if action.GetResource().Resource == "selfsubjectaccessreviews" {
					questions++
				}
			}
			equal(t, "questions", test.questions, questions)
		})
	}
}
