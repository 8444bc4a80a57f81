package testbed

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// logPart is the longest piece of a line that is one entry, as with containerd.
const logPart = 16 << 10

// containerLog is the log of a container, a file in the format of the CRI
// (https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md):
// TIME STREAM F|P TEXT, where P is for a line that goes on in the next entry.
type containerLog struct {
	path string

	mu      sync.Mutex
	file    *os.File
	open    map[string][]byte // the line of each stream that has no end yet
	changed chan struct{}     // closed and made anew by each change
	ended   bool
}

func (l *containerLog) create(path string) (err error) {
	l.path, l.open = path, map[string][]byte{}
	l.file, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	return err
}

// append takes output of the container.
func (l *containerLog) append(stream string, p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return os.ErrClosed
	}
	var entries bytes.Buffer
	text := slices.Concat(l.open[stream], p)
	for {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		switch {
		case len(line) > logPart:
			writeEntry(&entries, stream, "P", text[:logPart])
			text = text[logPart:]
			continue
		case whole:
			writeEntry(&entries, stream, "F", line)
			text = rest
			continue
		}
		break
	}
	l.open[stream] = bytes.Clone(text)
	_, err := l.file.Write(entries.Bytes())
	l.wake()
	return err
}

func writeEntry(to *bytes.Buffer, stream, kind string, text []byte) {
	fmt.Fprintf(to, "%s %s %s %s\n", time.Now().UTC().Format(time.RFC3339Nano), stream, kind, text)
}

// end writes what has no line end yet. Nothing is appended any more.
func (l *containerLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		var entries bytes.Buffer
		for stream, text := range l.open {
			if len(text) > 0 {
				writeEntry(&entries, stream, "P", text)
			}
		}
		_, _ = l.file.Write(entries.Bytes()) // a reader misses it
		_ = l.file.Close()
	}
	l.ended = true
	l.wake()
}

func (l *containerLog) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// state is read before the file, so that a change in between is not missed.
func (l *containerLog) state() (changed <-chan struct{}, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed, l.ended
}

// logs serves the log of a container, as the kubelet does.
func (n *Node) logs(w http.ResponseWriter, r *http.Request) {
	options, err := logOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c := n.found(w, r)
	if c == nil {
		return
	}
	if options.Previous {
		http.Error(w, "previous terminated container not found: containers are not started again", http.StatusBadRequest)
		return
	}
	file, err := os.Open(c.log.path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer file.Close()
	reader := &logReader{log: c.log, file: file, options: options, to: w, left: -1}
	if options.LimitBytes != nil {
		reader.left = *options.LimitBytes
	}
	switch {
	case options.SinceSeconds != nil:
		reader.since = time.Now().Add(-time.Duration(*options.SinceSeconds) * time.Second)
	case options.SinceTime != nil:
		reader.since = options.SinceTime.Time
	}
	if err := reader.run(r.Context()); err != nil {
		panic(http.ErrAbortHandler) // the caller must not take what it has for all
	}
}

// logOptions reads the query as kube-apiserver writes it.
func logOptions(query url.Values) (*corev1.PodLogOptions, error) {
	number := func(name string) (*int64, error) {
		if !query.Has(name) {
			return nil, nil
		}
		n, err := strconv.ParseInt(query.Get(name), 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s: %q is not a number of lines, seconds or bytes", name, query.Get(name))
		}
		return &n, nil
	}
	o := &corev1.PodLogOptions{
		Follow: query.Get("follow") == "true", Previous: query.Get("previous") == "true", Timestamps: query.Get("timestamps") == "true",
	}
	var errs [3]error
	o.SinceSeconds, errs[0] = number("sinceSeconds")
	o.TailLines, errs[1] = number("tailLines")
	o.LimitBytes, errs[2] = number("limitBytes")
	if stream := query.Get("stream"); stream != "" {
		o.Stream = &stream
	}
	if query.Has("sinceTime") {
		at, err := time.Parse(time.RFC3339, query.Get("sinceTime"))
		if err != nil {
			return nil, fmt.Errorf("sinceTime: %w", err)
		}
		o.SinceTime = &metav1.Time{Time: at}
	}
	return o, errors.Join(errs[:]...)
}

// logReader writes a log for one caller.
type logReader struct {
	log     *containerLog
	file    *os.File
	options *corev1.PodLogOptions
	to      http.ResponseWriter
	since   time.Time
	left    int64 // bytes that may be written; negative for no limit
	within  map[string]bool
}

// errEnough ends a log that has reached its limit.
var errEnough = errors.New("the limit of bytes is reached")

func (r *logReader) run(ctx context.Context) error {
	r.within = map[string]bool{}
	r.to.Header().Set("Content-Type", "text/plain")
	if r.options.TailLines != nil {
		if err := r.seekTail(*r.options.TailLines); err != nil {
			return err
		}
	}
	from := bufio.NewReader(r.file)
	var entry []byte
	for {
		changed, ended := r.log.state()
		err := r.copy(from, &entry)
		if errors.Is(err, errEnough) {
			return nil
		}
		if err := errors.Join(err, http.NewResponseController(r.to).Flush()); err != nil {
			return err
		}
		if ended || !r.options.Follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// copy writes what is there. Entry is one that was read in part.
func (r *logReader) copy(from *bufio.Reader, entry *[]byte) error {
	for {
		piece, err := from.ReadBytes('\n')
		*entry = append(*entry, piece...)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.write(*entry); err != nil {
			return err
		}
		*entry = (*entry)[:0]
	}
}

// write writes one entry if it is wanted.
func (r *logReader) write(entry []byte) error {
	fields := bytes.SplitN(entry, []byte(" "), 4)
	if len(fields) != 4 {
		return fmt.Errorf("log: the entry %q has no four fields", entry)
	}
	stream, text := string(fields[1]), fields[3]
	if string(fields[2]) == "P" {
		text = text[:len(text)-1]
	}
	begins := !r.within[stream]
	r.within[stream] = string(fields[2]) == "P"
	if wanted := r.options.Stream; wanted != nil && *wanted != corev1.LogStreamAll && !equalStream(*wanted, stream) {
		return nil
	}
	if !r.since.IsZero() {
		at, err := time.Parse(time.RFC3339Nano, string(fields[0]))
		if err != nil || at.Before(r.since) {
			return err
		}
	}
	if r.options.Timestamps && begins {
		text = append(append(bytes.Clone(fields[0]), ' '), text...)
	}
	if r.left >= 0 {
		text = text[:min(int64(len(text)), r.left)]
		r.left -= int64(len(text))
	}
	if _, err := r.to.Write(text); err != nil {
		return err
	}
	if r.left == 0 {
		return errEnough
	}
	return nil
}

// equalStream compares the API's name of a stream (Stdout) with the log's.
func equalStream(wanted, stream string) bool {
	return wanted == corev1.LogStreamStdout && stream == stdoutStream || wanted == corev1.LogStreamStderr && stream == stderrStream
}

// seekTail goes to the last lines of what is there now.
func (r *logReader) seekTail(lines int64) error {
	starts := []int64{0} // of the last lines, and where the next one will be
	from := bufio.NewReader(r.file)
	for at := int64(0); ; {
		entry, err := from.ReadSlice('\n')
		at += int64(len(entry))
		switch {
		case err == nil:
			if starts = append(starts, at); int64(len(starts)) > lines+1 {
				starts = starts[1:]
			}
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			_, err := r.file.Seek(starts[0], io.SeekStart)
			return err
		default:
			return err
		}
	}
}
