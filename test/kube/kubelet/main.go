// Command kubelet is a small one for the tests: it registers a node at an API server, runs the containers of pods that are
// bound to it as processes of this machine, whatever their image is, and serves exec, attach, port-forward and logs by the
// code that container runtimes serve them with (k8s.io/cri-streaming).
//
//	kubelet -server URL -token TOKEN -dir DIR [-node NAME]
//
// DIR holds ca.pem, cert.pem and key.pem; whom ca.pem does not vouch for is not served. It prints its address once the node
// is registered, and ends with its standard input, with everything that it started.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

func main() {
	c := config{}
	flag.StringVar(&c.server, "server", "", "the API server")
	flag.StringVar(&c.token, "token", "", "whom it takes the kubelet for")
	flag.StringVar(&c.dir, "dir", ".", "where ca.pem, cert.pem and key.pem are, and containers get their directories")
	flag.StringVar(&c.node, "node", "node", "the node's name")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "kubelet:", err)
		os.Exit(1)
	}
}

type config struct{ server, token, dir, node string }

func (c config) load() (*tls.Config, *x509.CertPool, error) {
	raw, err := os.ReadFile(filepath.Join(c.dir, "ca.pem"))
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, nil, errors.New("ca.pem holds no certificate")
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(c.dir, "cert.pem"), filepath.Join(c.dir, "key.pem"))
	return &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"}}, pool, err
}

func run(ctx context.Context, c config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	front, pool, err := c.load()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	k := &kubelet{config: c, start: launcher(), pods: map[string]*pod{},
		client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 8}}}
	if err := k.register(ctx, l.Addr().(*net.TCPAddr).Port); err != nil {
		return err
	}
	fmt.Println(l.Addr())
	srv := &http.Server{Handler: k.handler(), ReadHeaderTimeout: 10 * time.Second}
	var running sync.WaitGroup
	running.Go(func() { _ = srv.Serve(tls.NewListener(l, front)) })
	running.Go(func() { k.follow(ctx) })
	go func() { // ends with its standard input
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	<-ctx.Done()
	srv.Close()
	running.Wait()
	k.stop()
	return nil
}
