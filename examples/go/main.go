// Feedback from Go: `go run . [BROKER]` against a running `ratchet up`.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
)

type feedback struct {
	EventID      string    `json:"event_id"`
	OccurredAt   time.Time `json:"occurred_at"`
	Model        string    `json:"model"`
	Input        string    `json:"input"`
	Output       string    `json:"output"`
	FeedbackType string    `json:"feedback_type"`
	UserID       string    `json:"user_id"`
}

func main() {
	broker := "127.0.0.1:9092"
	if len(os.Args) > 1 {
		broker = os.Args[1]
	}
	now := time.Now().UTC()
	event := feedback{
		EventID:      fmt.Sprintf("go-%d-%d", os.Getpid(), now.UnixNano()), // an id that is sent again counts once
		OccurredAt:   now,
		Model:        "support",
		Input:        "The kettle is late.",
		Output:       "So what?",
		FeedbackType: "thumbs_down",
		UserID:       "agent-01",
	}
	value, err := json.Marshal(event)
	if err != nil {
		log.Fatal(err)
	}
	producer := &kafka.Writer{
		Addr:         kafka.TCP(broker),
		Topic:        "feedback.received",
		Balancer:     kafka.Murmur2Balancer{}, // as Kafka's own clients, so that a user's feedback stays in order across producers
		RequiredAcks: kafka.RequireAll,
		BatchTimeout: 10 * time.Millisecond,
	}
	// Returns when all in-sync replicas have the record.
	if err := producer.WriteMessages(context.Background(), kafka.Message{Key: []byte(event.UserID), Value: value}); err != nil {
		log.Fatal(err)
	}
	if err := producer.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(event.EventID)
}
