package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"crypto/tls"
)

// makeKeys makes the keys of this run: an authority, the API server's, the front proxy's, that of accounts, and one
// that stands for a host's.
func (c *Cluster) makeKeys() error {
	keys := filepath.Join(c.directory, "keys")
	authority := &x509.Certificate{
		Subject: pkix.Name{CommonName: "cluster"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	signer, err := issue(keys, "ca", authority, authority, nil)
	if err != nil {
		return err
	}
	for _, one := range []struct {
		name, subject string
		names         []string
		addresses     []string
	}{
		{"server", "kube-apiserver", []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}, []string{"127.0.0.1", apiService, nodeAddress}},
		{"front-proxy", "front-proxy", nil, nil},
		{"host", "checkup.example.com", []string{"checkup.example.com"}, nil},
	} {
		certificate := &x509.Certificate{
			Subject: pkix.Name{CommonName: one.subject}, DNSNames: one.names, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		for _, address := range one.addresses {
			certificate.IPAddresses = append(certificate.IPAddresses, net.ParseIP(address))
		}
		if _, err := issue(keys, one.name, certificate, authority, signer); err != nil {
			return err
		}
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&accounts.PublicKey)
	if err != nil {
		return err
	}
	if err := writeKey(filepath.Join(keys, "accounts.key"), accounts); err != nil {
		return err
	}
	if err := writePEM(filepath.Join(keys, "accounts.pub"), "PUBLIC KEY", public); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(keys, "tokens.csv"), []byte(adminToken+",admin,admin,system:masters\n"), 0o600); err != nil {
		return err
	}
	trusted := x509.NewCertPool()
	text, err := os.ReadFile(filepath.Join(keys, "ca.crt"))
	if err != nil {
		return err
	}
	trusted.AppendCertsFromPEM(text)
	c.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: trusted}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 20,
	}}
	return os.WriteFile(c.kubeconfig(), fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: cluster, cluster: {server: "https://%s", certificate-authority: %s/ca.crt}}]
users: [{name: admin, user: {token: %s}}]
contexts: [{name: cluster, context: {cluster: cluster, user: admin}}]
current-context: cluster
`, apiAddress, keys, adminToken), 0o600)
}

func issue(directory, name string, certificate, issuer *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if signer == nil {
		signer = key
	}
	certificate.SerialNumber = big.NewInt(time.Now().UnixNano())
	certificate.NotBefore, certificate.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(24*time.Hour)
	signed, err := x509.CreateCertificate(rand.Reader, certificate, issuer, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	if err := writePEM(filepath.Join(directory, name+".crt"), "CERTIFICATE", signed); err != nil {
		return nil, err
	}
	return key, writeKey(filepath.Join(directory, name+".key"), key)
}

func writeKey(path string, key any) error {
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "PRIVATE KEY", encoded)
}

func writePEM(path, kind string, encoded []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: encoded}), 0o600)
}
