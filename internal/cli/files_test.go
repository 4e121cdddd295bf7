package cli_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// dumpOf is a dump as a record has it.
func dumpOf(what string) catalog.Dump {
	path := ".backsnap-" + strings.ReplaceAll(what, " ", "-") + ".dump"
	sum := sha256.Sum256([]byte(contentOf(path)))
	return catalog.Dump{What: what, Path: path, Bytes: int64(len(contentOf(path))), SHA256: hex.EncodeToString(sum[:])}
}

// contentOf is what the file of that path holds in every volume.
func contentOf(path string) string { return fmt.Sprintf("-- %x\n", sha256.Sum256([]byte(path)))[:14] }

// server is the mover whose pod that is, if files are taken from it.
func (c *cluster) server(pod string) (restic.Job, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	job, ok := c.jobs[strings.TrimSuffix(pod, "-abcde")]
	return job, ok && job.Secret == "" && job.Command != nil
}

// serve hands out files: every path but those with "nowhere" in them is a file;
// all of a volume are two.
func (c *cluster) serve(job restic.Job, stdin io.Reader, stdout, stderr io.Writer) error {
	c.did("files are taken from claim %s/%s", job.Namespace, job.Claim)
	nonce, mode, paths, err := readAsk(stdin)
	if err != nil {
		return err
	}
	tell := func(format string, args ...any) {
		fmt.Fprintf(stderr, "backsnap %s %s\n", nonce, fmt.Sprintf(format, args...))
	}
	if len(paths) == 0 {
		paths = []string{"ibdata1", "conf.d"}
	}
	var out bytes.Buffer
	switch mode {
	case restic.AskSurvey:
		for i, path := range paths {
			if strings.Contains(path, "nowhere") {
				tell("missing %d", i+1)
			}
		}
		tell("end exit=0 files=%d bytes=%d", len(paths), len(paths)*14)
		return nil
	case restic.AskRaw:
		out.WriteString(contentOf(paths[0]))
	case restic.AskTar:
		archive := tar.NewWriter(&out)
		for _, path := range paths {
			if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "./" + path, Mode: 0o644, Size: 14}); err != nil {
				return err
			}
			if _, err := io.WriteString(archive, contentOf(path)); err != nil {
				return err
			}
		}
		if err := archive.Close(); err != nil {
			return err
		}
	}
	c.reached("fetch")
	if c.w.Storage.Cut {
		_, err := stdout.Write(out.Bytes()[:10])
		return err
	}
	if _, err := stdout.Write(out.Bytes()); err != nil {
		return err
	}
	sum := sha256.Sum256(out.Bytes())
	tell("end exit=0 bytes=%d sha256=%s", out.Len(), hex.EncodeToString(sum[:]))
	return nil
}

// readAsk is what a pod is asked for.
func readAsk(stdin io.Reader) (nonce, mode string, paths []string, err error) {
	in := bufio.NewReader(stdin)
	line := func() string {
		text, failed := in.ReadString('\n')
		if failed != nil {
			err = failed
		}
		return strings.TrimSuffix(text, "\n")
	}
	number := func() int {
		n, failed := strconv.Atoi(line())
		if failed != nil {
			err = failed
		}
		return n
	}
	if _, failed := in.Discard(number()); failed != nil {
		err = failed
	}
	nonce, mode = line(), line()
	number()
	for n := number(); n > 0 && err == nil; n-- {
		path := ""
		for _, digits := range strings.Split(line(), `\0`)[1:] {
			c, failed := strconv.ParseUint(digits, 8, 8)
			if failed != nil {
				err = failed
			}
			path += string([]byte{byte(c)})
		}
		paths = append(paths, path)
	}
	return nonce, mode, paths, err
}
