package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// status prints one line for each part. It is an error if one does not run.
func (c *cluster) status(_ context.Context, w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var ended []string
	for _, p := range c.allParts() {
		id, alive, err := c.running(p.name)
		if err != nil {
			return err
		}
		state := "not started"
		switch {
		case alive:
			state = fmt.Sprintf("running as %d", id.Pid)
		case id.Pid != 0:
			state = "ended"
		}
		if !alive {
			ended = append(ended, p.name)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", p.name, state, c.logFile(p.name))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(ended) > 0 {
		return fmt.Errorf("use the cluster: %s not running; bring it up", strings.Join(ended, ", "))
	}
	return nil
}

// env prints what a shell needs to use the cluster.
func (c *cluster) env(w io.Writer) error {
	if c.nodes == 0 {
		return fmt.Errorf("use the cluster at %s: it was never up", c.state)
	}
	values := [][2]string{
		{"KUBECONFIG", c.pki("admin.kubeconfig")},
		{"BACKSNAP_CLUSTER_STATE", c.state},
		{"BACKSNAP_CLUSTER_AUDIT_LOG", c.auditLog()},
		{"BACKSNAP_CLUSTER_CSI_FAULTS", c.faults()},
		{"BACKSNAP_CLUSTER_S3_URL", c.s3URL()},
		{"BACKSNAP_CLUSTER_S3_ACCESS_KEY", s3AccessKey},
		{"BACKSNAP_CLUSTER_S3_SECRET_KEY", s3SecretKey},
		{"BACKSNAP_CLUSTER_REST_URL", c.restURL()},
		{"BACKSNAP_CLUSTER_RESTIC", c.path("parts", "restic")},
	}
	for _, v := range values {
		if _, err := fmt.Fprintf(w, "export %s=%s\n", v[0], quote(v[1])); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "export PATH=%s:\"$PATH\"\n", quote(c.path("bin")))
	return err
}

// quote makes one word of text for any POSIX shell.
func quote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
