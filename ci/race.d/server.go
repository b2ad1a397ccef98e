// Go's net/http for ci/race: server ADDRESS
package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	body := strings.Repeat("x", 1000)
	server := http.Server{
		Addr:        os.Args[1],
		IdleTimeout: 2 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			time.Sleep(2 * time.Millisecond)
			peer, _, _ := net.SplitHostPort(r.RemoteAddr)
			w.Header().Set("X-Peer", peer)
			io.WriteString(w, body)
		}),
	}
	log.Fatal(server.ListenAndServe())
}
