package client

import (
	"context"
	"io"
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// startTargets starts what is reached in the network of edge-1.
func (w *world) startTargets(ctx context.Context) (err error) {
	inside := w.private[0].Inside
	w.postgres, err = testbed.StartPostgres(ctx, testbed.PostgresConfig{
		Name: "postgres", PostgreSQL: w.postgreSQL, Dir: testbed.Dir(), Namespace: inside, Listen: testbed.InsideAddress,
	})
	if err != nil {
		return err
	}
	for address, serve := range map[string]func(*net.TCPConn){greeter: greet, echo: answerAll, podEcho: answerAll} {
		ln, err := inside.Listen(ctx, address)
		if err != nil {
			return err
		}
		w.listeners = append(w.listeners, ln)
		w.serving.Go(func() { w.serve(ln, serve) })
	}
	var names net.PacketConn
	err = inside.Do(func() (err error) {
		names, err = net.ListenPacket("udp", testbed.InsideAddress.String()+":53")
		return err
	})
	if err != nil {
		return err
	}
	w.listeners = append(w.listeners, names)
	w.serving.Go(func() { answerNames(names) })
	return nil
}

// serve accepts until ln is closed.
func (w *world) serve(ln net.Listener, serve func(*net.TCPConn)) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		w.serving.Go(func() {
			defer conn.Close()
			serve(conn.(*net.TCPConn))
		})
	}
}

// greet speaks first, and waits for the end.
func greet(c *net.TCPConn) {
	if _, err := io.WriteString(c, "welcome"); err == nil {
		_, _ = io.Copy(io.Discard, c) // the caller compares
	}
}

func answerAll(c *net.TCPConn) { _, _ = io.Copy(c, c) } // the caller compares

// answerNames is the network's DNS, which knows db.prod alone.
func answerNames(conn net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		m.Response, m.Additionals = true, nil
		switch {
		case strings.ToLower(q.Name.String()) != "db.prod.":
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: testbed.InsideAddress.As4()},
			}}
		}
		if packet, err := m.Pack(); err == nil {
			_, _ = conn.WriteTo(packet, from) // who asks asks again
		}
	}
}
