package main

import (
	"context"
	_ "embed"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// Addresses inside a cluster. They live in its own namespaces, so all clusters
// have the same.
const (
	podRange     = "10.244.0.0/16"
	serviceRange = "10.96.0.0/16"
	apiService   = "10.96.0.1"
	dnsService   = "10.96.0.10"
)

// addresses are those that the host and the nodes see each other by.
type addresses struct {
	host netip.Addr // our end of the link to node 1
	node [3]netip.Addr
	peer netip.Addr // of node 1 on its link to node 2
}

const maxNodes = 2

// deriveAddresses picks eight addresses by the id from 198.18.0.0/15, which is
// set apart for benchmarks: neither the internet nor a private network uses it.
// The first four are the link from the host to node 1, the others the one from
// there to node 2.
func deriveAddresses(id string) addresses {
	sum, _ := hex.DecodeString(id)
	slot := int(sum[0])<<8 | int(sum[1])
	base := 198<<24 | 18<<16 | (slot%(1<<14))<<3
	at := func(n int) netip.Addr {
		a := uint32(base + n)
		return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
	}
	return addresses{host: at(1), node: [3]netip.Addr{1: at(2), 2: at(6)}, peer: at(5)}
}

func (a addresses) prefix() netip.Prefix { return netip.PrefixFrom(a.host, 29).Masked() }

// netns is the path of the network namespace of a node.
func (c *cluster) netns(node int) string {
	return "/run/netns/backsnap-" + c.id + "-" + strconv.Itoa(node)
}

// link is the name of our end of the link to node 1.
func (c *cluster) link() string { return "bsnap-" + c.id }

func podSubnet(node int) string { return fmt.Sprintf("10.244.%d.0/24", node) }

//go:embed scripts/network.sh
var networkScript string

// connect makes the network namespaces and the links between them. What is
// left of an earlier boot or of a run that was killed is made anew.
func (c *cluster) connect(ctx context.Context) (done string, err error) {
	for node := 1; node <= c.nodes; node++ {
		if c.made("network", node) && isNamespace(c.netns(node)) {
			continue
		}
		if err := c.checkFree(); err != nil {
			return "", err
		}
		if err := c.script(ctx, networkScript, strconv.Itoa(node), c.id, c.state,
			c.net.host.String(), c.net.node[1].String(), c.net.peer.String(), c.net.node[2].String(), podRange); err != nil {
			return "", fmt.Errorf("make network of node %d: %w", node, err)
		}
		if err := c.setMade("network", node); err != nil {
			return "", err
		}
		done = "made networks " + c.net.prefix().String()
	}
	return done, nil
}

// checkFree refuses addresses that another interface has, which would most
// likely be another cluster's whose id is close to ours.
func (c *cluster) checkFree() error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil || link.Name == c.link() {
			continue
		}
		for _, addr := range addrs {
			p, err := netip.ParsePrefix(addr.String())
			if err == nil && p.Overlaps(c.net.prefix()) {
				return fmt.Errorf("use addresses %s: interface %s has %s (%s); take another --state", c.net.prefix(), link.Name, p, alias(link.Name))
			}
		}
	}
	return nil
}

// alias says whose an interface is: we leave the state directory there.
func alias(link string) string {
	text, err := os.ReadFile("/sys/class/net/" + link + "/ifalias")
	if err != nil || strings.TrimSpace(string(text)) == "" {
		return "no cluster of ours"
	}
	return "cluster " + strings.TrimSpace(string(text))
}

func (c *cluster) disconnect(ctx context.Context) error {
	for node := maxNodes; node > 0; node-- {
		if err := os.RemoveAll(c.madeFile("network", node)); err != nil {
			return err
		}
		if _, err := os.Stat(c.netns(node)); err != nil {
			continue
		}
		name := strings.TrimPrefix(c.netns(node), "/run/netns/")
		if err := runQuietly(exec.CommandContext(ctx, "ip", "netns", "delete", name)); err != nil {
			return fmt.Errorf("remove network of node %d: %w", node, err)
		}
	}
	if _, err := net.InterfaceByName(c.link()); err != nil {
		return nil // it went with the namespace of its other end
	}
	return runQuietly(exec.CommandContext(ctx, "ip", "link", "delete", c.link()))
}

// script runs constant shell text on the host.
func (c *cluster) script(ctx context.Context, text string, args ...string) error {
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-euc", text, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	return runQuietly(cmd)
}

// madeFile holds the boot in which something that does not outlive one was
// made whole.
func (c *cluster) madeFile(what string, node int) string {
	return c.path("run", fmt.Sprintf("%s-%d.made", what, node))
}

func (c *cluster) made(what string, node int) bool {
	boot, err := bootID()
	text, readErr := os.ReadFile(c.madeFile(what, node))
	return err == nil && readErr == nil && string(text) == boot
}

func (c *cluster) setMade(what string, node int) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	return writeFile(c.madeFile(what, node), []byte(boot), 0o644)
}

// isNamespace tells whether path is a namespace that is held there by a mount,
// and not the empty file below it.
func isNamespace(path string) bool {
	const nsfsMagic = 0x6e736673
	var fs syscall.Statfs_t
	return syscall.Statfs(path, &fs) == nil && fs.Type == nsfsMagic
}
