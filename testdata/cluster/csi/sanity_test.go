package main

import (
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
)

func TestSanity(t *testing.T) {
	r := newRig(t)
	n := r.start("a", "")
	for _, access := range []string{"mount", "block"} {
		config := sanity.NewTestConfig()
		config.Address = "unix://" + n.socket
		config.TargetPath, config.StagingPath = r.path("target"), r.path("staging")
		config.TestVolumeSize = 64 << 20
		config.TestVolumeAccessType = access
		ginkgo.Describe(access, func() { sanity.GinkgoTest(&config) })
	}
	gomega.RegisterFailHandler(ginkgo.Fail)
	suite, reporter := ginkgo.GinkgoConfiguration()
	reporter.Succinct, reporter.NoColor = true, true
	ginkgo.RunSpecs(t, "CSI sanity", suite, reporter)
}
