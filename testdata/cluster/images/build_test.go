package images_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/cluster/images"
)

// The stubs stand for Debian's programs. A package is a tar of the same name in
// $PACKAGES, or has no files; it depends on nothing.
var stubs = map[string]string{
	"apt-config": `echo 'Acquire::Retries "3";'`,
	"apt-get": `grep -q '^Acquire::Retries "3";$' "$APT_CONFIG" && test -d "$TMPDIR" || exit 9
case $1 in
install) shift 2; for p; do echo "Inst $p (1 Debian)"; done ;;
download) shift 4; for p; do echo "$p" >"${p}_1_all.deb"; done ;;
esac`,
	"dpkg-deb": `read -r name <"$2"
if test "$name" = "$BROKEN"; then echo 'archive is cut short' >&2; exit 2; fi
tar="$PACKAGES/$name.tar"; test -e "$tar" || tar="$PACKAGES/empty.tar"
case $1 in
--fsys-tarfile) cat "$tar" ;;
--extract) mkdir -p "$3" && tar -xf "$tar" -C "$3" ;;
esac`,
	"localedef": `for out; do :; done; mkdir "$out" && echo collate >"$out/LC_COLLATE"`,
}

var packages = map[string][]tar.Header{
	"empty": nil,
	"coreutils": {
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./bin/cat", Mode: 0o755},
		{Name: "./bin/dog", Typeflag: tar.TypeLink, Linkname: "./bin/cat", Mode: 0o755},
		{Name: "./lib64/ld.so", Typeflag: tar.TypeSymlink, Linkname: "/lib/x/ld.so", Mode: 0o777},
		{Name: "./tmp/", Typeflag: tar.TypeDir, Mode: 0o700},
		{Name: "./usr/share/doc/coreutils/README", Mode: 0o644},
		{Name: "./usr/lib/x/gconv/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./var/mail/", Typeflag: tar.TypeDir, Mode: 0o2775, Gid: 8, Uname: "root", Gname: "mail"},
	},
	"postgresql-15": {
		{Name: "./lib/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./usr/lib/postgresql/15/lib/llvmjit.so", Mode: 0o644},
		{Name: "./usr/lib/postgresql/15/bin/postgres", Mode: 0o755},
	},
	"busybox-static":  {{Name: "./bin/busybox", Mode: 0o755}},
	"ca-certificates": {{Name: "./usr/share/ca-certificates/mozilla/One.crt", Mode: 0o644}},
}

// contents are what the files of the packages hold, by their base name.
var contents = map[string]string{
	"busybox": "#!/bin/sh\nprintf 'bin/busybox\\nbin/sh\\nusr/bin/awk\\nsbin/init\\n'\n",
	"One.crt": "certificate one\n",
}

// stubDebian puts the stubs before the real programs.
func stubDebian(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for name, script := range stubs {
		write(t, filepath.Join(dir, name), "#!/bin/sh\n"+script+"\n", 0o755)
	}
	for name, headers := range packages {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		for _, h := range headers {
			content := contents[filepath.Base(h.Name)]
			h.Size = int64(len(content))
			if err := tw.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			io.WriteString(tw, content)
		}
		if err := tw.Close(); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name+".tar"), b.String(), 0o644)
	}
	t.Setenv("PACKAGES", dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// options are for a cache of the test's own.
func options(t *testing.T, restic string) images.Options {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "restic"), restic, 0o755)
	return images.Options{Cache: filepath.Join(dir, "cache"), Restic: filepath.Join(dir, "restic")}
}

func buildAll(t *testing.T, o images.Options) []images.Image {
	t.Helper()
	built, err := images.Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// archive is the content of a docker-archive.
type archive struct {
	files  map[string][]byte
	layers [][]string // what tar -t would list
	config map[string]any
}

// open reads an archive, and fails the test where names and digests in it do
// not fit together.
func open(t *testing.T, i images.Image) archive {
	t.Helper()
	a := archive{files: map[string][]byte{}}
	b, err := os.ReadFile(i.Tar)
	if err != nil {
		t.Fatal(err)
	}
	eachFile(t, b, func(h *tar.Header, content []byte) { a.files[h.Name] = content })
	var manifests []struct {
		Config           string
		RepoTags, Layers []string
	}
	var config struct {
		Config map[string]any
		RootFS struct {
			Type    string
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := errors.Join(json.Unmarshal(a.files["manifest.json"], &manifests), json.Unmarshal(a.files[manifests[0].Config], &config)); err != nil {
		t.Fatal(err)
	}
	a.config = config.Config
	var ids []string
	for _, l := range manifests[0].Layers {
		sum := sha256.Sum256(a.files[l])
		ids = append(ids, "sha256:"+hex.EncodeToString(sum[:]))
		a.layers = append(a.layers, list(t, a.files[l]))
	}
	if m := manifests[0]; len(manifests) != 1 || !slices.Equal(m.RepoTags, []string{i.Ref}) || !slices.Equal(ids, config.RootFS.DiffIDs) {
		t.Errorf("%s: manifest %+v with layers %v, configuration %+v", i.Ref, manifests, ids, config)
	}
	return a
}

func eachFile(t *testing.T, archive []byte, use func(*tar.Header, []byte)) {
	t.Helper()
	tr := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		use(h, content)
	}
}

func list(t *testing.T, layer []byte) []string {
	t.Helper()
	var lines []string
	eachFile(t, layer, func(h *tar.Header, content []byte) {
		line := fmt.Sprintf("%c%04o %d:%d %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		lines = append(lines, line)
	})
	return lines
}

func TestBuildMakesEveryImage(t *testing.T) {
	stubDebian(t)
	var refs []string
	for _, i := range buildAll(t, options(t, "restic")) {
		open(t, i)
		refs = append(refs, i.Ref)
	}
	want := []string{
		"docker.io/library/postgres:15", "docker.io/library/mariadb:10.11", "docker.io/restic/restic:0.19.1",
		"docker.io/library/busybox:1.36", "registry.k8s.io/pause:3.10",
	}
	if !slices.Equal(refs, want) {
		t.Errorf("got %q, want %q", refs, want)
	}
}

func TestBuildLayersOfPostgres(t *testing.T) {
	stubDebian(t)
	a := open(t, buildAll(t, options(t, "restic"))[0])
	want := [][]string{{
		"20777 0:0 bin -> usr/bin", "20777 0:0 sbin -> usr/sbin", "20777 0:0 lib -> usr/lib", "20777 0:0 lib64 -> usr/lib64",
		"50755 0:0 usr/", "50755 0:0 usr/bin/", "20777 0:0 usr/bin/sh -> dash", "20777 0:0 usr/bin/awk -> mawk",
		"51777 0:0 tmp/", "50755 0:0 var/", "51777 0:0 var/tmp/", "20777 0:0 var/run -> /run",
		"50755 0:0 run/", "51777 0:0 run/lock/", "20777 0:0 var/lock -> /run/lock", "50755 0:0 etc/", "00644 0:0 etc/nsswitch.conf",
		"00755 0:0 usr/bin/cat", "10755 0:0 usr/bin/dog -> usr/bin/cat", "50755 0:0 usr/lib64/", "20777 0:0 usr/lib64/ld.so -> /lib/x/ld.so",
		"52775 0:8 var/mail/",
	}, {
		"50755 0:0 usr/", "50755 0:0 usr/lib/", "50755 0:0 usr/lib/locale/", "50755 0:0 usr/lib/locale/en_US.utf8/",
		"00644 0:0 usr/lib/locale/en_US.utf8/LC_COLLATE", "50755 0:0 usr/lib/postgresql/", "50755 0:0 usr/lib/postgresql/15/",
		"50755 0:0 usr/lib/postgresql/15/bin/", "00755 0:0 usr/lib/postgresql/15/bin/postgres",
	}, {
		"50755 0:0 etc/", "00644 0:0 etc/passwd", "00644 0:0 etc/group", "50755 0:0 usr/", "50755 0:0 usr/local/",
		"50755 0:0 usr/local/bin/", "00755 0:0 usr/local/bin/docker-entrypoint.sh", "50755 0:0 docker-entrypoint-initdb.d/",
		"50755 0:0 run/", "53777 999:999 run/postgresql/", "50755 0:0 var/", "50755 0:0 var/lib/",
		"51777 999:999 var/lib/postgresql/", "51777 999:999 var/lib/postgresql/data/",
	}}
	if !reflect.DeepEqual(a.layers, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(slices.Concat(a.layers...), "\n"), strings.Join(slices.Concat(want...), "\n"))
	}
	if got := a.config["StopSignal"]; got != "SIGINT" {
		t.Errorf("stop signal %q", got)
	}
}

func TestBuildSharesLayerOfDatabases(t *testing.T) {
	stubDebian(t)
	built := buildAll(t, options(t, "restic"))
	postgres, mariadb := open(t, built[0]), open(t, built[1])
	var shared int
	for name, content := range postgres.files {
		if strings.HasSuffix(name, "/layer.tar") && bytes.Equal(content, mariadb.files[name]) {
			shared++
		}
	}
	if shared != 1 {
		t.Errorf("%d layers are shared", shared)
	}
}

func TestBuildLinksApplets(t *testing.T) {
	stubDebian(t)
	a := open(t, buildAll(t, options(t, "restic"))[2])
	var links []string
	for _, line := range slices.Concat(a.layers...) {
		if strings.HasSuffix(line, " -> /bin/busybox") {
			links = append(links, line)
		}
	}
	want := []string{"20777 0:0 usr/bin/sh -> /bin/busybox", "20777 0:0 usr/bin/awk -> /bin/busybox", "20777 0:0 usr/sbin/init -> /bin/busybox"}
	if !slices.Equal(links, want) {
		t.Errorf("got %q, want %q", links, want)
	}
}

func TestBuildIsTheSameEverywhere(t *testing.T) {
	stubDebian(t)
	one, two := buildAll(t, options(t, "restic")), buildAll(t, options(t, "restic"))
	for i := range one {
		a, errA := os.ReadFile(one[i].Tar)
		b, errB := os.ReadFile(two[i].Tar)
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %v, %v", one[i].Ref, errA, errB)
		}
	}
}

func TestBuildTakesFinishedImagesFromCache(t *testing.T) {
	stubDebian(t)
	o := options(t, "restic")
	first := buildAll(t, o)
	t.Setenv("PATH", "")
	var log bytes.Buffer
	o.Log = &log
	if second := buildAll(t, o); !slices.Equal(first, second) || log.Len() > 0 {
		t.Errorf("got %v after %v, log %q", second, first, &log)
	}
	names, err := filepath.Glob(filepath.Join(o.Cache, "images", "*"))
	if want := len(first) + 1; err != nil || len(names) != want { // and the lock
		t.Errorf("%d files in the cache, want %d: %q, %v", len(names), want, names, err)
	}
}

func TestBuildMakesOnlyWhatChanged(t *testing.T) {
	stubDebian(t)
	o := options(t, "restic")
	first := buildAll(t, o)
	write(t, o.Restic, "newer restic", 0o755)
	var log bytes.Buffer
	o.Log = &log
	second := buildAll(t, o)
	for i := range first {
		if changed := first[i] != second[i]; changed != (i == 2) {
			t.Errorf("%s: from %s to %s", first[i].Ref, first[i].Tar, second[i].Tar)
		}
	}
	if got, want := log.String(), "building restic-0.19.1\nbuilding busybox\nbuilding restic-files\n"; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
}

func TestBuildLeavesNothingHalfMade(t *testing.T) {
	stubDebian(t)
	o := options(t, "restic")
	t.Setenv("BROKEN", "mariadb-client")
	_, err := images.Build(t.Context(), o)
	want := "build image docker.io/library/mariadb:10.11: build layer mariadb-packages: read package mariadb-client_1_all.deb: exit status 2: archive is cut short"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	names, err := filepath.Glob(filepath.Join(o.Cache, "images", "*"))
	if err != nil || len(names) != 2 || !strings.HasPrefix(filepath.Base(names[1]), "postgres-15-") { // and the lock
		t.Errorf("got %q, %v", names, err)
	}
	t.Setenv("BROKEN", "")
	buildAll(t, o)
}

func TestBuildWaitsForAnotherUntilCancelled(t *testing.T) {
	stubDebian(t)
	o := options(t, "restic")
	buildAll(t, o)
	f, err := os.Open(filepath.Join(o.Cache, "images", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := images.Build(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
