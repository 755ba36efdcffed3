// Records from franz-go: `go run . BROKER TOPIC CODEC` sends the lines of stdin, each `key|value`.
//
// CODEC is gzip, snappy, lz4 or zstd; "default" leaves it to franz-go, "transaction" sends the lines
// in a committed transaction, and "aborted" in one that is aborted.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func main() {
	broker, topic, mode := os.Args[1], os.Args[2], os.Args[3]
	options := []kgo.Opt{kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(topic)}
	if codec, found := codecs[mode]; found {
		options = append(options, kgo.ProducerBatchCompression(codec))
	}
	inTransaction := mode == "transaction" || mode == "aborted"
	if inTransaction {
		options = append(options, kgo.TransactionalID(fmt.Sprintf("franz-%d", os.Getpid())))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if inTransaction {
		if err := client.BeginTransaction(); err != nil {
			log.Fatal(err)
		}
	}
	var records []*kgo.Record
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "|")
		records = append(records, &kgo.Record{Key: []byte(key), Value: []byte(value)})
	}
	if err := client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		log.Fatal(err)
	}
	if inTransaction {
		if err := client.EndTransaction(context.Background(), kgo.TransactionEndTry(mode == "transaction")); err != nil {
			log.Fatal(err)
		}
	}
}
