import java.time.Instant;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** Feedback from Java: {@code mvn -q compile exec:java -Dexec.args=BROKER} against a running {@code ratchet up}. */
public class Feedback {
    public static void main(String[] args) throws Exception {
        String broker = args.length > 0 ? args[0] : "127.0.0.1:9092";
        Instant now = Instant.now();
        String user = "agent-01";
        // An id that is sent again counts once.
        String id = "java-" + ProcessHandle.current().pid() + "-" + now;
        // Use a JSON library for text that users write.
        String event = """
            {"event_id": "%s", "occurred_at": "%s", "model": "support", "input": "The kettle is late.", "output": "So what?",
             "feedback_type": "thumbs_down", "user_id": "%s"}""".formatted(id, now, user);
        Map<String, Object> settings = Map.of("bootstrap.servers", broker, "acks", "all", "enable.idempotence", true);
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            // Waits until all in-sync replicas have the record.
            producer.send(new ProducerRecord<>("feedback.received", user, event)).get();
        }
        System.out.println(id);
    }
}
