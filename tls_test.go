package carrel

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeCertificate makes a certificate for 127.0.0.1 and writes it and its key.
func writeCertificate(t *testing.T, name string) (chainFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	chain, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	chainFile, keyFile = filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{chainFile: {Type: "CERTIFICATE", Bytes: chain}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return chainFile, keyFile
}

func TestCertificateFilesThatCannotServeAreFaults(t *testing.T) {
	chain, key := writeCertificate(t, "one")
	_, otherKey := writeCertificate(t, "two")
	for _, tt := range []struct {
		name, chain, key, reason string
		spoil                    func() error
	}{
		{"both", chain, key, "", nil},
		{"no key", chain, "", "CARREL_TLS_CERT_FILE: is set without CARREL_TLS_KEY_FILE", nil},
		{"no certificate", "", key, "CARREL_TLS_KEY_FILE: is set without CARREL_TLS_CERT_FILE", nil},
		{"another's key", chain, otherKey, "does not match", nil},
		{"not there", chain + "x", key, "no such file", nil},
		{"a directory", chain, filepath.Dir(key), "no regular file", nil},
		{"changed places", key, chain, "CARREL_TLS_CERT_FILE", nil},
		{"a key that others can read", chain, key, "has mode 0604", func() error { return os.Chmod(key, 0o604) }},
		{"a key that its group can write", chain, key, "has mode 0620", func() error { return os.Chmod(key, 0o620) }},
		{"a key that its group can read", chain, key, "", func() error { return os.Chmod(key, 0o640) }},
		{"a certificate that others can write", chain, key, "has mode 0602", func() error { return os.Chmod(chain, 0o602) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.spoil != nil {
				if err := tt.spoil(); err != nil {
					t.Fatal(err)
				}
			}
			source := ConfigSource{Environ: []string{"CARREL_TLS_CERT_FILE=" + tt.chain, "CARREL_TLS_KEY_FILE=" + tt.key}}
			if tt.reason == "" {
				mustLoad(t, source)
				return
			}
			got := mustFail(t, source)
			if len(got) != 1 || !strings.Contains(got[0], tt.reason) || strings.Contains(got[0], "PRIVATE") {
				t.Errorf("faults %q, want one with %q", got, tt.reason)
			}
		})
	}
}

func TestRenewedCertificateIsInForceAndAHalfRenewedOneIsNot(t *testing.T) {
	chain, key := writeCertificate(t, "old")
	newChain, newKey := writeCertificate(t, "new")
	c := &certificate{chainFile: chain, keyFile: key}
	name := func() string {
		got, err := c.config().GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return got.Leaf.Subject.CommonName
	}
	if err := c.load(); err != nil || name() != "old" {
		t.Fatalf("%s, %v", name(), err)
	}
	if err := os.Rename(newChain, chain); err != nil {
		t.Fatal(err)
	}
	if err := c.load(); err == nil || name() != "old" {
		t.Errorf("with the new certificate and the old key: %s, %v", name(), err)
	}
	if err := os.Rename(newKey, key); err != nil {
		t.Fatal(err)
	}
	if err := c.load(); err != nil || name() != "new" {
		t.Errorf("renewed: %s, %v", name(), err)
	}
}
