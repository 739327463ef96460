package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carrel/client"
	"carrel/internal/ordeal"
	"carrel/protocol"
)

// certificateFor writes a certificate for 127.0.0.1, in force from now on where a
// daemon has these files already.
func certificateFor(t *testing.T, dir string, serial int64) (chain, key string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	chainText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	chain, key = filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	for path, text := range map[string][]byte{key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), chain: chainText} {
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(chainText)
	return chain, key, roots
}

func TestTLSServesStreamsAndARenewedCertificate(t *testing.T) {
	dir := t.TempDir()
	chain, key, roots := certificateFor(t, dir, 1)
	g := serveGuarded(t, "CARREL_TLS_CERT_FILE="+chain, "CARREL_TLS_KEY_FILE="+key)
	if !strings.HasPrefix(g.url, "https://127.0.0.1:") {
		t.Fatalf("it listens on %s", g.url)
	}
	for name, http2 := range map[string]bool{"HTTP/2": true, "HTTP/1.1": false} {
		t.Run(name, func(t *testing.T) {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: http2}
			c, err := client.New(g.url, client.Options{Key: client.Key(g.ana), HTTPClient: &http.Client{Transport: transport}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			run, err := c.Execute(t.Context(), protocol.ExecuteRequest{UserID: "ana", Message: "for i in 1 2 3; do echo line $i; sleep 0.1; done"}, client.ExecuteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var last protocol.Event
			for ev, err := range c.Events(t.Context(), run.RunID, 0) {
				if err != nil {
					t.Fatal(err)
				}
				last = ev
			}
			if last.Type != protocol.EventRunFinished || !strings.Contains(string(last.Data), "line 3") {
				t.Errorf("the run ended with %s %s", last.Type, last.Data)
			}
		})
	}
	stdout, stderr, status := command(t, environment(t.TempDir(), "SSL_CERT_FILE="+chain, "CARREL_URL="+g.url, "CARREL_API_KEY="+g.ana), "exec", "--user", "ana", "--", "echo", "hi")
	if status != 0 || stdout != "hi\n" {
		t.Errorf("the command line: %d %q %q", status, stdout, stderr)
	}
	address := strings.TrimPrefix(g.url, "https://")
	if _, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS11}}).DialContext(t.Context(), "tcp", address); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	g.url = "http://" + address
	g.http = &http.Client{} // it is net/http that answers, in words that no document of ours has
	if status, body := g.get("/healthz", nil); status != http.StatusBadRequest {
		t.Errorf("without TLS: %d %s", status, body)
	}
	certificateFor(t, dir, 2)
	ordeal.Eventually(t, "the renewed certificate is served", func() bool {
		conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return false
		}
		defer func() { _ = conn.Close() }()
		served := conn.(*tls.Conn).ConnectionState().PeerCertificates[0] //nolint:forcetypeassert // of a tls.Dialer
		return served.SerialNumber.Int64() == 2
	})
	g.stop()
}
