package edgeflow.bench;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.flink.api.common.JobStatus;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.GlobalConfiguration;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.TopicPartition;

/**
 * Runs job.sql in a Flink cluster within this process until its bounded source ends, and prints what that took: from
 * the moment the job is RUNNING, and over the whole life of the process (total_...).
 *
 * <p>Arguments: the folder of config.yaml and job.sql, the broker, the input topic, the output topic.
 */
public final class Main {
    public static void main(String[] args) throws Exception {
        Path home = Path.of(args[0]);
        String bootstrap = args[1];
        String inTopic = args[2];
        String outTopic = args[3];
        String sql = Files.readString(home.resolve("job.sql"))
                .replace("${BOOTSTRAP}", bootstrap)
                .replace("${IN_TOPIC}", inTopic)
                .replace("${OUT_TOPIC}", outTopic);
        Configuration config = GlobalConfiguration.loadConfiguration(home.toString());
        String checkpoints = Files.createTempDirectory("checkpoints").toUri().toString();
        config.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, checkpoints);

        JobClient job = submit(config, sql);
        awaitRunning(job);
        long begin = System.nanoTime();
        double startup = cpuSeconds();
        job.getJobExecutionResult().get();
        double wall = (System.nanoTime() - begin) / 1e9;
        double total = cpuSeconds();

        double cpu = total - startup;
        long rows = rows(bootstrap, inTopic);
        System.out.printf(
                "rows=%d wall_s=%.2f cpu_s=%.2f total_cpu_s=%.2f peak_rss_mb=%d rows_per_cpu_s=%.0f"
                        + " rows_per_total_cpu_s=%.0f%n",
                rows, wall, cpu, total, peakRssMb(), rows / cpu, rows / total);
    }

    /** The job is that of the last statement. */
    private static JobClient submit(Configuration config, String sql) {
        TableEnvironment tables =
                TableEnvironment.create(EnvironmentSettings.newInstance().withConfiguration(config).build());
        JobClient job = null;
        for (String statement : sql.strip().split(";")) {
            job = tables.executeSql(statement).getJobClient().orElse(null);
        }
        return job;
    }

    private static void awaitRunning(JobClient job) throws Exception {
        JobStatus status = job.getJobStatus().get();
        while (status != JobStatus.RUNNING && !status.isGloballyTerminalState()) {
            Thread.sleep(1);
            status = job.getJobStatus().get();
        }
    }

    /** User and system time of all threads of this process. */
    private static double cpuSeconds() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime() / 1e9;
    }

    private static long peakRssMb() throws Exception {
        String status = Files.readString(Path.of("/proc/self/status"));
        String kb = status.replaceAll("(?s).*VmHWM:\\s*(\\d+) kB.*", "$1");
        return Long.parseLong(kb) / 1024;
    }

    /** As many as the topic has offsets: whoever filled it used no transactions. */
    private static long rows(String bootstrap, String topic) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            var partitions = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions();
            Map<TopicPartition, OffsetSpec> ends = partitions.stream()
                    .collect(Collectors.toMap(p -> new TopicPartition(topic, p.partition()), p -> OffsetSpec.latest()));
            return admin.listOffsets(ends).all().get().values().stream().mapToLong(end -> end.offset()).sum();
        }
    }
}
