package kube

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// What a load balancer says that finds no API server behind it is waited for;
// what a server says of itself is not.
func TestAgain(t *testing.T) {
	for code, want := range map[int]int{http.StatusBadGateway: 3, http.StatusServiceUnavailable: 3, http.StatusInternalServerError: 1} {
		synctest.Test(t, func(t *testing.T) {
			tried := 0
			err := again(t.Context(), func(context.Context) error {
				if tried++; tried < 3 {
					return apierrors.NewGenericServerResponse(code, "get", schema.GroupResource{Resource: "leases"}, "a", "", 0, true)
				}
				return nil
			})
			equal(t, http.StatusText(code), want, tried)
			equal(t, http.StatusText(code)+": it fails", want == 1, err != nil)
		})
	}
}
