package plugins

import (
	"fmt"
	"slices"
	"strings"
)

// Roles turns a dump of PostgreSQL's globals into statements that make those
// roles of it that a server does not have, with their settings and what they
// are members of, as psql runs them. Roles that are there stay as they are: the
// passwords in the dump may be old ones, that of the superuser among them. All
// else that globals hold, which is tablespaces, is left out: their directories
// are not in the dump. It is "" where globals make no role.
func Roles(globals []byte) (string, error) {
	all, err := statements(string(globals))
	if err != nil {
		return "", err
	}
	var names []string
	for _, s := range all {
		if name, ok := strings.CutPrefix(s, "CREATE ROLE "); ok {
			names = append(names, name)
		}
	}
	var b strings.Builder
	for i, name := range names {
		if i == 0 {
			b.WriteString("SET standard_conforming_strings = on;\n")
		}
		// First all of them are made: they may be each other's members.
		fmt.Fprintf(&b, "SELECT to_regrole('%s') IS NULL AS bs_new_%d \\gset\n\\if :bs_new_%d\nCREATE ROLE %s;\n\\endif\n",
			strings.ReplaceAll(name, "'", "''"), i, i, name)
	}
	for i, name := range names {
		fmt.Fprintf(&b, "\\if :bs_new_%d\n", i)
		for _, s := range all {
			if concerns(s, name) {
				b.WriteString(s + ";\n")
			}
		}
		b.WriteString("\\endif\n")
	}
	return b.String(), nil
}

// concerns reports whether the statement says what the role of that name, as it
// is quoted, may do, or what it is a member of.
func concerns(statement, role string) bool {
	if rest, ok := strings.CutPrefix(statement, "ALTER ROLE "+role+" "); ok {
		return slices.ContainsFunc([]string{"WITH ", "SET ", "IN DATABASE "}, func(word string) bool { return strings.HasPrefix(rest, word) })
	}
	if !strings.HasPrefix(statement, "GRANT ") {
		return false
	}
	_, to, ok := strings.Cut(statement, " TO "+role)
	return ok && (to == "" || to[0] == ' ')
}

// statements splits what pg_dumpall wrote, without the semicolons; comments and
// psql's own commands are left out. A backslash in a string is always doubled
// there, so that quotes come in pairs.
func statements(text string) ([]string, error) {
	var all []string
	for text != "" {
		text = strings.TrimLeft(text, " \t\r\n")
		if strings.HasPrefix(text, "--") || strings.HasPrefix(text, `\`) {
			_, text, _ = strings.Cut(text, "\n")
			continue
		}
		if text == "" {
			break
		}
		end := semicolon(text)
		if end < 0 {
			return nil, fmt.Errorf("statement %q has no end", text[:min(len(text), 60)])
		}
		all = append(all, text[:end])
		text = text[end+1:]
	}
	return all, nil
}

// semicolon is where the first statement of text ends; -1 if it does not.
func semicolon(text string) int {
	quote := byte(0)
	for i := range len(text) {
		switch c := text[i]; {
		case c == quote:
			quote = 0
		case quote != 0:
		case c == '\'' || c == '"':
			quote = c
		case c == ';':
			return i
		}
	}
	return -1
}
