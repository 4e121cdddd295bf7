// Package plugins knows applications: how a database is recognised in a
// container, and which shell script probes it, dumps it, or forces what it has
// acknowledged onto the disk.
//
// An application is a folder of data, embedded: plugin.yaml says by what it is
// recognised and which files make up each script; the scripts are constant
// POSIX sh for dash and busybox alike. Nothing is ever templated into a script:
// values follow it over standard input, secrets come from the container's own
// environment, so that neither can be seen in an argument list or a URL.
//
// The package is pure. It makes a [Command] and reads what the command printed;
// it never talks to a cluster, and it believes nothing but an end line that
// carries the nonce of the run.
package plugins

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed load.sh lib.sh feed.sh find.sh remove.sh */plugin.yaml */*.sh
var builtin embed.FS

// ErrUnknown is what [Lookup] wraps when there is no plugin of that name.
var ErrUnknown = errors.New("no such plugin")

// Plugin is one application. It is a value; copies are independent of each
// other and safe for concurrent use.
type Plugin struct {
	Name  string // as in --plugin, for example "postgres"
	Title string // as people write it, for example "PostgreSQL"

	nominate signs
	scripts  map[string]string // step to what is sent of it: loader, length, library and script
}

// The steps a plugin may know. Every plugin knows how to probe.
const (
	stepProbe   = "probe"
	stepDump    = "dump"
	stepBarrier = "barrier"
	stepLoad    = "load"
	// stepFind and stepRemove are the same for every plugin: files lie where its
	// dump said.
	stepFind   = "find"
	stepRemove = "remove"
)

// steps are those that a plugin.yaml may name files for.
var steps = []string{stepProbe, stepDump, stepBarrier, stepLoad}

// manifest is the form of plugin.yaml.
type manifest struct {
	APIVersion string              `json:"apiVersion"`
	Kind       string              `json:"kind"`
	Name       string              `json:"name"`
	Title      string              `json:"title"`
	Nominate   signs               `json:"nominate"`
	Scripts    map[string][]string `json:"scripts"` // step to files, in order
}

// signs are what nominates an application from outside. All but Ports are
// patterns of [path.Match].
type signs struct {
	Images []string `json:"images"` // the last part of the image's name, without tag
	Vetoes []string `json:"vetoes"` // the same; one of these and it is no such application
	Ports  []int32  `json:"ports"`
	Names  []string `json:"portNames"`
	Env    []string `json:"env"`
	Mounts []string `json:"mounts"`
}

// All returns the built-in plugins, sorted by name. An error is a fault of the
// build, not of the user.
func All() ([]Plugin, error) {
	return load(builtin)
}

// Lookup returns the built-in plugin called name. If there is none, the error
// wraps [ErrUnknown] and says which there are.
func Lookup(name string) (Plugin, error) {
	all, err := All()
	if err != nil {
		return Plugin{}, err
	}
	var names []string
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Plugin{}, fmt.Errorf("plugin %q: %w (there are: %s)", name, ErrUnknown, strings.Join(names, ", "))
}

// load reads every plugin of fsys, sorted by name.
func load(fsys fs.FS) ([]Plugin, error) {
	files, err := fs.Glob(fsys, "*/plugin.yaml")
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var all []Plugin
	for _, file := range files {
		p, err := read(fsys, path.Dir(file))
		if err != nil {
			return nil, fmt.Errorf("read plugin %s: %w", path.Dir(file), err)
		}
		all = append(all, p)
	}
	return all, nil
}

// read reads the plugin in folder dir of fsys.
func read(fsys fs.FS, dir string) (Plugin, error) {
	text, err := fs.ReadFile(fsys, path.Join(dir, "plugin.yaml"))
	if err != nil {
		return Plugin{}, err
	}
	var m manifest
	if err := yaml.UnmarshalStrict(text, &m); err != nil {
		return Plugin{}, err
	}
	if err := m.validate(dir); err != nil {
		return Plugin{}, err
	}
	p := Plugin{Name: m.Name, Title: m.Title, nominate: m.Nominate, scripts: map[string]string{}}
	for _, step := range []string{stepFind, stepRemove} {
		if p.scripts[step], err = script(fsys, ".", []string{step + ".sh"}); err != nil {
			return Plugin{}, fmt.Errorf("script %s: %w", step, err)
		}
	}
	for step, files := range m.Scripts {
		if p.scripts[step], err = script(fsys, dir, files); err != nil {
			return Plugin{}, fmt.Errorf("script %s: %w", step, err)
		}
	}
	return p, nil
}

// validate says what is wrong with the manifest of folder dir.
func (m manifest) validate(dir string) error {
	switch {
	case m.APIVersion != "backsnap.sh/v1" || m.Kind != "Plugin":
		return fmt.Errorf("is %s %s, not backsnap.sh/v1 Plugin", m.APIVersion, m.Kind)
	case m.Name != dir:
		return fmt.Errorf("name %q differs from its folder's", m.Name)
	case m.Title == "":
		return errors.New("has no title")
	case len(m.Nominate.Images) == 0:
		return errors.New("nominates no image")
	case len(m.Scripts[stepProbe]) == 0:
		return errors.New("has no script to probe")
	}
	for step := range m.Scripts {
		if !slices.Contains(steps, step) {
			return fmt.Errorf("script %q is none of %s", step, strings.Join(steps, ", "))
		}
	}
	n := m.Nominate
	for _, pattern := range slices.Concat(n.Images, n.Vetoes, n.Names, n.Env, n.Mounts) {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("pattern %q: %w", pattern, err)
		}
	}
	return nil
}

// script makes of files what the bootstrap reads: the loader and its length, then
// the shared library and files and theirs.
func script(fsys fs.FS, dir string, files []string) (string, error) {
	loader, err := strip(fsys, "load.sh")
	if err != nil {
		return "", err
	}
	names := []string{"lib.sh"}
	for _, f := range files {
		names = append(names, path.Join(dir, f))
	}
	text, err := strip(fsys, names...)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d\n%s%d\n%s", len(loader), loader, len(text), text), nil
}

// strip joins files without indentation and without the lines that are only a
// comment. They are ASCII, so that every shell agrees on their length.
func strip(fsys fs.FS, names ...string) (string, error) {
	var b strings.Builder
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimLeft(line, "\t ")
			if line != "\n" && !strings.HasPrefix(line, "#") {
				b.WriteString(line)
			}
		}
	}
	if i := strings.IndexFunc(b.String(), func(r rune) bool { return r >= 0x80 }); i >= 0 {
		return "", fmt.Errorf("%s: byte %d is not ASCII", strings.Join(names, " "), i)
	}
	return b.String(), nil
}
