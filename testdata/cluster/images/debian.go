package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// absent are packages that others depend on and that no image has use for:
// they serve maintainer scripts, which do not run, perl wrappers, or the JIT of
// PostgreSQL, which is simply off without its library. apt is told that they
// are installed.
var absent = []string{
	"adduser", "debconf", "debconf-2.0", "dpkg", "init-system-helpers", "libconfig-inifiles-perl", "libllvm14",
	"libpam-modules", "libpam-runtime", "locales", "login", "lsb-base", "mariadb-common", "netbase", "openssl",
	"passwd", "perl", "perl-base", "postgresql-client-common", "postgresql-common", "readline-common",
	"sensible-utils", "ssl-cert", "usrmerge", "util-linux-extra",
}

// preferences make Debian's own packages win over those of another archive that
// the machine may use, such as a newer PostgreSQL.
const preferences = `Package: *
Pin: release o=Debian
Pin-Priority: 990
`

// debian fetches packages through an apt state of its own.
type debian struct {
	dir   string
	ready bool
}

// fetch returns the paths of the packages and of what they depend on, sorted,
// without those that the packages in below bring.
func (d *debian) fetch(ctx context.Context, packages, below []string) ([]string, error) {
	if len(packages) == 0 {
		return nil, nil
	}
	if err := d.setUp(ctx); err != nil {
		return nil, err
	}
	names, err := d.closure(ctx, slices.Concat(below, packages))
	if err != nil {
		return nil, err
	}
	if len(below) > 0 {
		have, err := d.closure(ctx, below)
		if err != nil {
			return nil, err
		}
		names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(have, n) })
	}
	return d.download(ctx, names)
}

// download puts the packages of these names, and no others, into the archives.
func (d *debian) download(ctx context.Context, names []string) ([]string, error) {
	// An absent package counts as installed, and must be seen as the one it is.
	if _, err := d.apt(ctx, append([]string{"download", "-q", "-o", "Dir::State::status=/dev/null"}, names...)...); err != nil {
		return nil, err
	}
	var debs []string
	for _, n := range names {
		found, err := filepath.Glob(filepath.Join(d.dir, "archives", n+"_*.deb"))
		if err != nil {
			return nil, err
		}
		if len(found) != 1 {
			return nil, fmt.Errorf("download package %s: %d files have its name", n, len(found))
		}
		debs = append(debs, found[0])
	}
	return debs, nil
}

// closure is the sorted names of packages and of all that they depend on.
func (d *debian) closure(ctx context.Context, packages []string) ([]string, error) {
	out, err := d.apt(ctx, append([]string{"install", "--simulate"}, packages...)...)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Inst" {
			names = append(names, f[1])
		}
	}
	slices.Sort(names)
	return names, nil
}

// setUp makes the apt state and fetches the lists, once.
func (d *debian) setUp(ctx context.Context) error {
	if d.ready {
		return nil
	}
	for _, dir := range []string{"lists/partial", "archives/partial", "tmp", "unpacked"} {
		if err := os.MkdirAll(filepath.Join(d.dir, dir), 0o755); err != nil {
			return err
		}
	}
	host, err := output(exec.CommandContext(ctx, "apt-config", "dump", "--no-empty", "Acquire"))
	if err != nil {
		return err
	}
	err = errors.Join(
		os.WriteFile(d.configFile(), []byte(d.config(string(host))), 0o644),
		os.WriteFile(filepath.Join(d.dir, "preferences"), []byte(preferences), 0o644),
		os.WriteFile(filepath.Join(d.dir, "status"), []byte(status()), 0o644),
	)
	if err != nil {
		return err
	}
	if _, err := d.apt(ctx, "update", "-q"); err != nil {
		return err
	}
	d.ready = true
	return nil
}

func (d *debian) configFile() string { return filepath.Join(d.dir, "apt.conf") }

// config is a configuration that shares with the machine's own the sources, the
// keys and, in host, how to reach them: no hook of the machine runs and none of
// its state is touched.
func (d *debian) config(host string) string {
	var b strings.Builder
	for line := range strings.Lines(host) {
		if !strings.HasPrefix(line, "Acquire::IndexTargets") && !strings.HasPrefix(line, "Acquire::Languages") {
			b.WriteString(line)
		}
	}
	fmt.Fprintf(&b, `Acquire::Languages "none";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Dir::Cache "%[1]s";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "%[1]s/preferences";
Dir::Etc::preferencesparts "/dev/null";
Dir::Log "%[1]s/log";
Dir::State "%[1]s";
Dir::State::status "%[1]s/status";
`, d.dir)
	return b.String()
}

// status is a dpkg database in which only the absent packages are installed.
func status() string {
	var b strings.Builder
	for _, p := range absent {
		fmt.Fprintf(&b, "Package: %s\nStatus: install ok installed\nVersion: 9999\nArchitecture: %s\nMulti-Arch: allowed\n\n", p, runtime.GOARCH)
	}
	return b.String()
}

func (d *debian) apt(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Dir = filepath.Join(d.dir, "archives")
	cmd.Env = append(os.Environ(), "APT_CONFIG="+d.configFile(), "TMPDIR="+filepath.Join(d.dir, "tmp"), "LC_ALL=C")
	return output(cmd)
}

// read hands over the files of a package as a tar.
func (d *debian) read(ctx context.Context, deb string, use func(*tar.Reader) error) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = use(tar.NewReader(out))
	_, rest := io.Copy(io.Discard, out) // what pads the tar
	if err := errors.Join(err, rest, cmd.Wait()); err != nil {
		return fmt.Errorf("read package %s: %w: %s", filepath.Base(deb), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// unpack returns a directory with the files of one package.
func (d *debian) unpack(ctx context.Context, name string) (string, error) {
	if err := d.setUp(ctx); err != nil {
		return "", err
	}
	debs, err := d.download(ctx, []string{name})
	if err != nil {
		return "", err
	}
	dir := filepath.Join(d.dir, "unpacked", name)
	return dir, run(exec.CommandContext(ctx, "dpkg-deb", "--extract", debs[0], dir))
}

// run is output for a command whose output is of no interest.
func run(cmd *exec.Cmd) error {
	_, err := output(cmd)
	return err
}

// output runs cmd and returns what it wrote; what it wrote to standard error
// becomes part of the error.
func output(cmd *exec.Cmd) ([]byte, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", filepath.Base(cmd.Path), err)
	}
	return out, nil
}
