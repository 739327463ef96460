package carrel

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// maxPEMBytes bounds a file of certificates or of a key.
const maxPEMBytes = 1 << 20

// certificate is the TLS certificate in force. It is safe for concurrent use.
type certificate struct {
	chainFile, keyFile string

	inForce atomic.Pointer[tls.Certificate]
}

// load reads the certificate and its key. With an error the one from before stays.
func (c *certificate) load() error {
	pair, err := readCertificate(c.chainFile, c.keyFile)
	if err == nil {
		c.inForce.Store(pair)
	}
	return err
}

// config is what a server speaks TLS by: 1.2 or newer, else as Go has it.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.inForce.Load(), nil },
	}
}

func readCertificate(chainFile, keyFile string) (*tls.Certificate, error) {
	// The chain is public; only who may change it matters.
	chain, err := readPEM(chainFile, 0o022, "others than its owner may change it; chmod 644")
	if err != nil {
		return nil, err
	}
	// A group may read it: Debian keeps keys so for the programs of ssl-cert.
	key, err := readPEM(keyFile, 0o027, "others may read or change the private key; chmod 600")
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", chainFile, keyFile, err)
	}
	return &pair, nil
}

// readPEM reads a regular file, without waiting for a FIFO's writer, unless its mode
// has one of the forbidden bits.
func readPEM(path string, forbidden os.FileMode, why string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is no regular file but %s", path, info.Mode().Type())
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return nil, fmt.Errorf("%s: has mode %#o: %s", path, mode, why)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxPEMBytes+1))
	if err == nil && len(text) > maxPEMBytes {
		err = errors.New("is too long for a PEM file")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// hasTLS reports whether the API speaks TLS.
func (c Config) hasTLS() bool { return c.TLSCertFile != "" && c.TLSKeyFile != "" }

// checkTLS reports what is wrong with the files of the certificate.
func (c Config) checkTLS() []Fault {
	fault := Fault{Key: "CARREL_TLS_CERT_FILE"}
	switch {
	case c.TLSCertFile == "" && c.TLSKeyFile == "":
		return nil
	case c.TLSKeyFile == "":
		fault.Reason = "is set without CARREL_TLS_KEY_FILE; set both or neither"
	case c.TLSCertFile == "":
		fault.Key, fault.Reason = "CARREL_TLS_KEY_FILE", "is set without CARREL_TLS_CERT_FILE; set both or neither"
	default:
		if _, err := readCertificate(c.TLSCertFile, c.TLSKeyFile); err != nil {
			fault.Reason = err.Error()
			break
		}
		return nil
	}
	return []Fault{fault}
}

// openCertificate reads the TLS certificate, if there is one.
func (o *Orchestrator) openCertificate() error {
	if !o.cfg.hasTLS() {
		return nil
	}
	o.certificate = &certificate{chainFile: o.cfg.TLSCertFile, keyFile: o.cfg.TLSKeyFile}
	return o.reloads.add("TLS certificate", func() error {
		if err := o.certificate.load(); err != nil {
			return err
		}
		if until := o.certificate.inForce.Load().Leaf.NotAfter; until.Before(time.Now()) {
			o.log.WarnContext(o.root, "the TLS certificate has expired, and clients will refuse it", "until", until)
		}
		return nil
	}, o.cfg.TLSCertFile, o.cfg.TLSKeyFile)
}
