package trust

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	randv2 "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// patternPeriod is a prime, so that no loss or doubling of frames, buffers or
// pages goes unseen.
const patternPeriod = 65521

// pattern is an endless reproducible stream of bytes, safe for concurrent use: two
// periods, so that any slice of at most one period is in it.
var pattern = func() []byte {
	random := randv2.New(randv2.NewPCG(3, 4))
	twice := make([]byte, 2*patternPeriod)
	for i := range patternPeriod {
		twice[i] = byte(random.Uint32())
	}
	copy(twice[patternPeriod:], twice)
	return twice
}()

// source stands in the place of an API server. /stream sends the pattern without
// end: as fast as it is read, or with ?pause=MS one block each MS milliseconds.
type source struct {
	server     *httptest.Server
	kubeconfig string
	token      string
}

func startSource(kubeconfig string) (*source, error) {
	s := &source{kubeconfig: kubeconfig, token: rand.Text()}
	mux := http.NewServeMux()
	mux.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "{}") })
	mux.HandleFunc("/stream", stream)
	s.server = httptest.NewUnstartedServer(mux)
	s.server.EnableHTTP2 = true
	s.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) // of connections that end
	s.server.StartTLS()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw})
	return s, os.WriteFile(kubeconfig, testbed.Kubeconfig(s.server.URL, ca, s.token), 0o600)
}

// streamBlock is small against the period, so that a block is one slice.
const streamBlock = 32 << 10

func stream(w http.ResponseWriter, r *http.Request) {
	pause, _ := strconv.Atoi(r.FormValue("pause")) // none is 0
	var tick <-chan time.Time
	if pause > 0 {
		ticker := time.NewTicker(time.Duration(pause) * time.Millisecond)
		defer ticker.Stop()
		tick = ticker.C
	}
	for offset := 0; ; offset += streamBlock {
		start := offset % patternPeriod
		if _, err := w.Write(pattern[start : start+streamBlock]); err != nil {
			return // the reader is gone
		}
		if tick == nil {
			continue
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-tick:
		case <-r.Context().Done():
			return
		}
	}
}

// download is a /stream that is read and compared until it ends or is stopped.
type download struct {
	bytes  atomic.Int64
	cancel context.CancelFunc
	ended  chan struct{}
	err    error     // why it ended; read after ended
	at     time.Time // when
}

// startDownload opens a stream of cluster through the hub and reads it.
func (h *hub) startDownload(ctx context.Context, cluster, query string) (*download, error) {
	ctx, cancel := context.WithCancel(ctx)
	client, done := h.client()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+h.addr()+"/"+cluster+"/stream?"+query, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+the.ada)
	resp, err := client.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body) // for the message only
		resp.Body.Close()
		err = fmt.Errorf("download: %s: %s", resp.Status, text)
	}
	if err != nil {
		cancel()
		done()
		return nil, err
	}
	d := &download{cancel: cancel, ended: make(chan struct{})}
	go d.read(resp.Body, done)
	return d, nil
}

// read ends with the stream.
func (d *download) read(body io.ReadCloser, done func()) {
	d.err = d.compare(body)
	d.at = time.Now()
	body.Close()
	done()
	close(d.ended)
}

func (d *download) compare(r io.Reader) error {
	buf := make([]byte, streamBlock)
	for offset := int64(0); ; {
		n, err := r.Read(buf)
		start := offset % patternPeriod
		if !bytes.Equal(buf[:n], pattern[start:start+int64(n)]) {
			return errWrongBytes
		}
		offset += int64(n)
		d.bytes.Store(offset)
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", offset, err)
		}
	}
}

var errWrongBytes = errors.New("the bytes are not those that were sent")

// atLeast is an error before n bytes were read, or when the download has ended.
func (d *download) atLeast(n int64) error {
	select {
	case <-d.ended:
		return fmt.Errorf("the download has ended: %w", d.err)
	default:
	}
	if got := d.bytes.Load(); got < n {
		return fmt.Errorf("%d of %d bytes", got, n)
	}
	return nil
}

// stop ends a download that goes on, and returns why it had ended already, if so.
func (d *download) stop() error {
	select {
	case <-d.ended:
		return d.err
	default:
	}
	d.cancel()
	<-d.ended
	if errors.Is(d.err, context.Canceled) {
		return nil
	}
	return d.err
}
