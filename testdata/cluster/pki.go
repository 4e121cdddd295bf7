package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// identity is a certificate of the cluster: a user for clients, names and
// addresses for servers.
type identity struct {
	file   string // without .crt and .key, in pki
	user   string
	group  string
	names  []string
	server []net.IP
}

const masters = "system:masters" // may do everything

// identities are all that the parts and the user are known by. Those of the
// snapshot and provisioning programs may do everything, under names of their
// own, so that the audit log tells them apart.
func (c *cluster) identities() []identity {
	first := net.IP(c.net.node[1].AsSlice())
	all := []identity{
		{file: "admin", user: "admin", group: masters},
		{file: "apiserver", user: "kube-apiserver", group: masters,
			names:  []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			server: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(apiService), first}},
		{file: "controller-manager", user: "system:kube-controller-manager"},
		{file: "scheduler", user: "system:kube-scheduler"},
		{file: "proxy", user: "system:kube-proxy"},
	}
	for _, name := range []string{"coredns", "snapshot-controller", "csi-snapshotter", "csi-provisioner"} {
		all = append(all, identity{file: name, user: "cluster:" + name, group: masters})
	}
	for node := 1; node <= maxNodes; node++ {
		name := nodeName(node)
		all = append(all, identity{file: name, user: "system:node:" + name, group: "system:nodes",
			names: []string{name}, server: []net.IP{net.IP(c.net.node[node].AsSlice())}})
	}
	return all
}

// issue makes the certificates, keys and kubeconfigs. They are made together
// or not at all: the folder gets its name last.
func (c *cluster) issue() (done string, err error) {
	if _, err := os.Stat(c.path("pki")); err == nil {
		return "", nil
	}
	part := c.path("pki.part")
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	if err := os.MkdirAll(part, 0o700); err != nil {
		return "", err
	}
	ca, err := newAuthority(part)
	if err != nil {
		return "", fmt.Errorf("make certificates: %w", err)
	}
	for _, id := range c.identities() {
		if err := ca.issue(part, id, "https://"+c.net.node[1].String()+":6443"); err != nil {
			return "", fmt.Errorf("make certificate %s: %w", id.file, err)
		}
	}
	if _, err := newKey(part + "/service-account.key"); err != nil {
		return "", fmt.Errorf("make key of service accounts: %w", err)
	}
	return "made certificates", os.Rename(part, c.path("pki"))
}

// authority signs for the cluster.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

const validity = 10 * 365 * 24 * time.Hour

func newAuthority(dir string) (authority, error) {
	key, err := newKey(dir + "/ca.key")
	if err != nil {
		return authority{}, err
	}
	a := authority{key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "backsnap-test-cluster"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}}
	a.pem, err = a.sign(a.cert, &key.PublicKey)
	if err != nil {
		return authority{}, err
	}
	block, _ := pem.Decode(a.pem)
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return authority{}, err
	}
	return a, os.WriteFile(dir+"/ca.crt", a.pem, 0o644)
}

func (a authority) sign(cert *x509.Certificate, key *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key, a.key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// issue writes certificate, key and kubeconfig of id.
func (a authority) issue(dir string, id identity, api string) error {
	key, err := newKey(dir + "/" + id.file + ".key")
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return err
	}
	subject := pkix.Name{CommonName: id.user}
	if id.group != "" {
		subject.Organization = []string{id.group}
	}
	cert, err := a.sign(&x509.Certificate{
		SerialNumber: serial, Subject: subject, DNSNames: id.names, IPAddresses: id.server,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, &key.PublicKey)
	if err != nil {
		return err
	}
	if err := os.WriteFile(dir+"/"+id.file+".crt", cert, 0o644); err != nil {
		return err
	}
	keyText, err := os.ReadFile(dir + "/" + id.file + ".key")
	if err != nil {
		return err
	}
	return os.WriteFile(dir+"/"+id.file+".kubeconfig", kubeconfig(api, id.user, a.pem, cert, keyText), 0o600)
}

func kubeconfig(api, user string, ca, cert, key []byte) []byte {
	var b bytes.Buffer
	encode := base64.StdEncoding.EncodeToString
	fmt.Fprintf(&b, `apiVersion: v1
kind: Config
current-context: backsnap
clusters:
- name: backsnap
  cluster:
    server: %s
    certificate-authority-data: %s
contexts:
- name: backsnap
  context:
    cluster: backsnap
    user: %q
users:
- name: %q
  user:
    client-certificate-data: %s
    client-key-data: %s
`, api, encode(ca), user, user, encode(cert), encode(key))
	return b.Bytes()
}
