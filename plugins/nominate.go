package plugins

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Port is a port that a container declares; Name may be empty.
type Port struct {
	Name   string
	Number int32
}

// Container is what can be seen of a container from outside.
type Container struct {
	Name   string
	Image  string // as in the pod's spec, with registry, tag or digest
	Ports  []Port
	Env    []string // names only: values are none of our business
	Mounts []string // mount paths
}

// What each sign is worth, and what it takes. An image is enough by itself; a
// port is not, and neither are a port and a mount, since proxies have both.
const (
	imageScore = 60
	portScore  = 20
	envScore   = 30
	mountScore = 20
	enough     = 50
)

// Nominate returns the plugin for which c shows the most signs, and the signs
// as a reason for people: "image postgresql, port 5432". Signs only nominate;
// what really runs in c is for the probe to say. If there is no plugin, reason
// says what came nearest, and is empty when there was no sign at all.
func Nominate(all []Plugin, c Container) (p Plugin, reason string, ok bool) {
	best := 0
	for _, candidate := range all {
		score, why := candidate.nominate.score(c)
		if score > best {
			p, reason, best = candidate, why, score
		}
		if best == 0 && reason == "" {
			reason = why
		}
	}
	if best < enough {
		return Plugin{}, reason, false
	}
	return p, reason, true
}

// score says how much of s is seen in c, and what.
func (s signs) score(c Container) (int, string) {
	image := baseName(c.Image)
	if pattern := firstMatch(s.Vetoes, image); pattern != "" && s.resembles(c) {
		return 0, fmt.Sprintf("image %s is not a database (%s)", image, pattern)
	}
	score, why := 0, []string(nil)
	add := func(points int, format string, args ...any) {
		score += points
		why = append(why, fmt.Sprintf(format, args...))
	}
	if firstMatch(s.Images, image) != "" {
		add(imageScore, "image %s", image)
	}
	if i := slices.IndexFunc(c.Ports, s.hasPort); i >= 0 {
		add(portScore, "port %d", c.Ports[i].Number)
	}
	if name := firstOf(s.Env, c.Env); name != "" {
		add(envScore, "environment %s", name)
	}
	if mount := firstOf(s.Mounts, c.Mounts); mount != "" {
		add(mountScore, "mount %s", mount)
	}
	return score, strings.Join(why, ", ")
}

// resembles reports whether c shows any sign besides its veto, so that a veto
// is not given as the reason for a container that is something else altogether.
func (s signs) resembles(c Container) bool {
	return firstMatch(s.Images, baseName(c.Image)) != "" || slices.ContainsFunc(c.Ports, s.hasPort) ||
		firstOf(s.Env, c.Env) != "" || firstOf(s.Mounts, c.Mounts) != ""
}

func (s signs) hasPort(p Port) bool {
	return slices.Contains(s.Ports, p.Number) || firstMatch(s.Names, p.Name) != ""
}

// baseName is the last part of an image's name, without tag and digest.
func baseName(image string) string {
	name, _, _ := strings.Cut(image, "@")
	name = path.Base(name)
	name, _, _ = strings.Cut(name, ":")
	return strings.ToLower(name)
}

// firstOf returns the first of values that matches any pattern.
func firstOf(patterns, values []string) string {
	for _, v := range values {
		if firstMatch(patterns, v) != "" {
			return v
		}
	}
	return ""
}

// firstMatch returns the first of patterns that value matches.
func firstMatch(patterns []string, value string) string {
	for _, p := range patterns {
		if ok, _ := path.Match(p, value); ok { // the patterns were checked when they were read
			return p
		}
	}
	return ""
}
