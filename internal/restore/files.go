package restore

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Local says that what is restored comes to this machine, and no claim is made
// of it: files into Dir, or dumps into File.
type Local struct {
	// Dir is the folder that files go to; "" where dumps are wanted. Nothing in
	// it is overwritten.
	Dir string
	// File is the file that the dump goes to: "-" is the caller's output, one
	// that ends with a slash, or that Folder says is a folder, has a file for
	// each dump.
	File   string
	Folder bool
	// Dump is the only one that is wanted: the name of a database, or what else
	// the record calls it; "" for all.
	Dump string
}

// Dumps reports whether dumps are wanted, and not files.
func (l Local) Dumps() bool { return l.Dir == "" }

// several reports whether there is room for more than one dump.
func (l Local) several() bool { return l.Folder || strings.HasSuffix(l.File, "/") }

// ParsePaths reads lists of paths in a volume: separated by commas, of which
// one after a backslash is part of a name. What begins with a slash begins at
// the volume's root too. A path below another of them is left out.
func ParsePaths(lists []string) ([]string, error) {
	var paths []string
	for _, list := range lists {
		for _, text := range splitList(list) {
			clean := path.Clean("./" + strings.TrimLeft(text, "/"))
			switch {
			case text == "":
				return nil, fmt.Errorf("file %q: a path is empty", list)
			case clean == ".":
				return nil, fmt.Errorf("file %q is the whole volume: leave --file away", text)
			case slices.Contains(strings.Split(text, "/"), ".."):
				return nil, fmt.Errorf("file %q: a path begins at the volume's root, and has no .. in it", text)
			}
			paths = append(paths, clean)
		}
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool {
		return slices.ContainsFunc(paths, func(other string) bool { return other != p && within(p, other) })
	}), nil
}

// splitList splits at commas that have no backslash before them.
func splitList(list string) []string {
	const comma = "\x00" // which is in no argument
	parts := strings.Split(strings.ReplaceAll(list, `\,`, comma), ",")
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], comma, ",")
	}
	return parts
}

// within reports whether name is the path, or below it.
func within(name, of string) bool {
	return of == "." || name == of || strings.HasPrefix(name, of+"/")
}

// selecting is where files are taken from that are to be in a new claim: a
// clone of a snapshot has all of them, so it is a copy.
func selecting(r Request) (Request, error) {
	if len(r.Paths) == 0 || r.Local != nil {
		return r, nil
	}
	if i := slices.IndexFunc(r.Paths, func(p string) bool { return !utf8.ValidString(p) }); i >= 0 {
		return r, &catalog.Failure{
			Code: catalog.CodeUsage, Message: fmt.Sprintf("file %q is not restored into a claim: its name is no text", r.Paths[i]),
			State: "nothing changed", Next: "restore the folder that it lies in, or bring it here with --to-dir",
		}
	}
	if r.From.Kind == Snapshot {
		return r, &catalog.Failure{
			Code: catalog.CodeUnsupported, Message: "a claim that is made from a snapshot holds all of it, not --file alone",
			State: "nothing changed", Next: "take them from a copy: --from copy; or bring them here: --to-dir DIR",
		}
	}
	r.From.Kind = Copy
	return r, nil
}

// haveFiles refuses volumes without a file system where files are wanted.
func (p *planner) haveFiles(plan Plan) error {
	if p.Local == nil && len(p.Paths) == 0 {
		return nil
	}
	for _, v := range plan.Volumes {
		if v.Snapshot.Record.Claim.VolumeMode == catalog.BlockMode {
			return p.refuse(v.Snapshot, catalog.CodeUnsupported, "it is a block volume, which has no files", "restore it into a claim: leave --file, --to-dir and --dump-to away")
		}
	}
	return nil
}

// local makes the plan one of what comes to this machine: its claims are those
// that are made on the way.
func (p *planner) local(plan Plan) (Plan, error) {
	if p.Local.Dumps() {
		var err error
		if plan.Volumes, err = p.withDumps(plan); err != nil {
			return plan, err
		}
	}
	for i := range plan.Volumes {
		v := &plan.Volumes[i]
		v.Claim.Name, v.Claim.Role = v.Name, catalog.RoleClone
		if v.Exact > 0 { // it is only read from
			v.Claim.Request, v.Exact = v.Exact, 0
		}
		v.Claim.Labels[catalog.LabelRole] = string(catalog.RoleClone)
		v.To = p.destination(plan, v.Snapshot.Claim)
		v.Notes = slices.DeleteFunc(v.Notes, func(note string) bool { return v.Waits() && strings.Contains(note, "first consumer") })
	}
	return plan, p.free(plan)
}

// destination is the folder on this machine that a claim's files or dumps go
// to; one of its own where there are several claims.
func (p *planner) destination(plan Plan, claim string) string {
	dir := p.Local.Dir
	if p.Local.Dumps() {
		if !p.Local.several() {
			return filepath.Dir(p.Local.File)
		}
		dir = p.Local.File
	}
	if len(plan.Volumes) > 1 {
		dir = filepath.Join(dir, claim)
	}
	return filepath.Clean(dir)
}

// withDumps are the volumes that have dumps which are wanted, and these.
func (p *planner) withDumps(plan Plan) ([]Volume, error) {
	var volumes []Volume
	var all, wanted []string
	for _, v := range plan.Volumes {
		for _, d := range v.Snapshot.Record.Dumps {
			all = append(all, d.What)
			if p.Local.Dump == "" || d.What == p.Local.Dump || d.What == "database "+p.Local.Dump {
				v.Dumps = append(v.Dumps, d)
				wanted = append(wanted, d.What)
			}
		}
		if len(v.Dumps) > 0 {
			volumes = append(volumes, v)
		}
	}
	f := &catalog.Failure{Code: catalog.CodeNoDump, State: "nothing changed"}
	switch {
	case len(all) == 0:
		f.Message = fmt.Sprintf("set %s of %s has no dump", plan.Chosen[0].Set.Run, p.Target)
		f.Cause = errors.New(cmp.Or(plan.Chosen[0].Points[0].Snapshot.Record.Reason, "its record names none"))
		f.Next = "take its files: --to-dir DIR instead of --dump-to"
	case len(wanted) == 0:
		f.Message = fmt.Sprintf("set %s of %s has no dump %q", plan.Chosen[0].Set.Run, p.Target, p.Local.Dump)
		f.Next = "one of: " + strings.Join(all, ", ")
	case len(wanted) > 1 && !p.Local.several():
		f.Code = catalog.CodeUsage
		f.Message = fmt.Sprintf("--dump-to %s: there are %d dumps: %s", p.Local.File, len(wanted), strings.Join(wanted, ", "))
		f.Next = "take one with --dump NAME, or all into a folder: --dump-to " + p.Local.File + "/"
		if p.Local.File == "-" {
			f.Next = "take one with --dump NAME, or all into a folder: --dump-to DIR/"
		}
	default:
		return volumes, nil
	}
	return nil, f
}

// free refuses what is on this machine already.
func (p *planner) free(plan Plan) error {
	for _, v := range plan.Volumes {
		if p.Local.File == "-" {
			continue
		}
		taken, err := v.taken(p.Request)
		if err != nil {
			return &catalog.Failure{Code: catalog.CodeUsage, Message: "look into " + v.To, Cause: err, State: "nothing changed", Next: "name a folder that you may write to"}
		}
		if taken != "" {
			return exists(taken)
		}
	}
	return nil
}

// exists says that what would be written is there already.
func exists(name string) error {
	return &catalog.Failure{
		Code: catalog.CodeExists, Message: fmt.Sprintf("%q is there already", name),
		State: "it was not changed", Next: "name another folder or file, or move it away",
	}
}

// localRights adds what it takes to bring files of v here.
func (p Plan) localRights(v Volume, rights *catalog.Rights) {
	in := p.Place(v)
	if v.Way != Fill {
		rights.Add("snapshot.storage.k8s.io", "volumesnapshots", v.Snapshot.Namespace, "get")
	}
	rights.Add("", "persistentvolumeclaims", in, "create", "get", "watch", "delete")
	rights.Add("batch", "jobs", in, "create", "watch", "delete")
	rights.Add("", "pods", in, "list", "watch")
	rights.Add("", "pods/exec", in, "create")
	if v.Class.Retains {
		rights.Add("", "persistentvolumes", "", "get", "patch")
	}
}

// fileName is what the dump of that name is called on this machine, without
// what says of its form. Whatever bytes a database's name has, it is one name
// in a folder.
func fileName(what string) string {
	name := strings.TrimPrefix(what, "database ")
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case c == '.' && i == 0, c < ' ', c == 0x7f, strings.IndexByte(`/\:*?"<>|%`, c) >= 0:
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// forms are how the content of a dump begins, and how its file's name ends.
var forms = []struct{ begins, ends string }{
	{"PGDMP", ".dump"}, {"\x1f\x8b", ".sql.gz"}, {"\x28\xb5\x2f\xfd", ".sql.zst"}, {"", ".sql"},
}
