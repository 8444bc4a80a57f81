package websocket_test

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	gorilla "github.com/gorilla/websocket"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// TestAnswerBeforeTheFailure is about targets that answer and fail while a client sends, as
// those do that refuse an upload.
func TestAnswerBeforeTheFailure(t *testing.T) {
	answer := make([]byte, 100<<10)
	refuses := func(session *mux.Session) {
		if _, err := io.ReadFull(session, make([]byte, 1)); err == nil {
			_, _ = session.Write(answer)
		}
		session.Fail(wire.CodeConnectionReset, wire.HopTarget, "reset by peer")
	}
	// uploads sends until it cannot, and takes nothing until the session has failed.
	uploads := func(t *testing.T, conn *gorilla.Conn) (sent <-chan error) {
		t.Helper()
		ended := make(chan error, 1)
		go func() {
			var err error
			for range 1000 {
				if err = conn.WriteMessage(gorilla.BinaryMessage, make([]byte, 1<<10)); err != nil {
					break
				}
			}
			ended <- err
		}()
		synctest.Wait()
		return ended
	}
	t.Run("the answer arrives, and then 1011", func(t *testing.T) {
		inMemory(t, refuses, func(t *testing.T, conn *gorilla.Conn) {
			t.Helper()
			sent := uploads(t, conn)
			if text, code := read(conn); len(text) != len(answer) || code != gorilla.CloseInternalServerErr {
				t.Errorf("got %d of %d bytes, and %d", len(text), len(answer), code)
			}
			<-sent // whether all went out before the Close
		})
	})
	t.Run("a client that takes nothing is cut after 5 s", func(t *testing.T) {
		inMemory(t, refuses, func(t *testing.T, conn *gorilla.Conn) {
			t.Helper()
			start := time.Now()
			sent := uploads(t, conn)
			seconds := time.NewTicker(time.Second) // of the bubble's clock
			defer seconds.Stop()
			for err := <-sent; err == nil; {
				<-seconds.C
				err = conn.WriteMessage(gorilla.BinaryMessage, []byte("more"))
			}
			if took := time.Since(start); took < 5*time.Second || took > 6*time.Second {
				t.Errorf("cut after %v", took)
			}
		})
	})
}
