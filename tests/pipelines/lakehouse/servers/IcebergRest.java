import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import org.apache.iceberg.CatalogProperties;
import org.apache.iceberg.io.FileIO;
import org.apache.iceberg.io.InputFile;
import org.apache.iceberg.io.OutputFile;
import org.apache.iceberg.jdbc.JdbcCatalog;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;

/**
 * Apache Iceberg's own REST catalog over SQLite: the adapter and servlet its client is tested with. Two catalogs, one
 * that keeps its files on disk and one that keeps them on S3: FOLDER PORT S3_PORT S3_ENDPOINT S3_WAREHOUSE.
 */
public class IcebergRest {
  public static void main(String[] arguments) throws Exception {
    Path folder = Path.of(arguments[0]);
    JdbcCatalog onDisk = new JdbcCatalog(unused -> new LocalFiles(), null, true);
    serve(folder, "file", Integer.parseInt(arguments[1]), onDisk, Map.of(
        CatalogProperties.WAREHOUSE_LOCATION, "file://" + folder.resolve("warehouse")));
    serve(folder, "s3", Integer.parseInt(arguments[2]), new JdbcCatalog(), Map.of(
        CatalogProperties.FILE_IO_IMPL, "org.apache.iceberg.aws.s3.S3FileIO",
        CatalogProperties.WAREHOUSE_LOCATION, arguments[4],
        "s3.endpoint", arguments[3],
        "s3.path-style-access", "true",
        "s3.access-key-id", "reel",
        "s3.secret-access-key", "of the tests",
        "client.region", "us-east-1",
        "http-client.type", "urlconnection"));
    System.in.read(); // ends when whoever started this closes it, or dies
    System.exit(0);
  }

  private static void serve(Path folder, String name, int port, JdbcCatalog catalog, Map<String, String> properties)
      throws Exception {
    Map<String, String> all = new HashMap<>(properties);
    all.put(CatalogProperties.URI, "jdbc:sqlite:" + folder.resolve(name + ".db"));
    all.put(CatalogProperties.CLIENT_POOL_SIZE, "1"); // SQLite takes one writer at a time
    catalog.initialize(name, all);
    ServletContextHandler context = new ServletContextHandler();
    context.addServlet(new ServletHolder(new RESTCatalogServlet(new RESTCatalogAdapter(catalog))), "/*");
    Server server = new Server(new InetSocketAddress("127.0.0.1", port));
    server.setHandler(context);
    server.start();
  }

  /** Files on this machine's disk; Iceberg's own would need Hadoop. */
  public static class LocalFiles implements FileIO {
    @Override
    public InputFile newInputFile(String path) {
      return org.apache.iceberg.Files.localInput(local(path).toFile());
    }

    @Override
    public OutputFile newOutputFile(String path) {
      try {
        Files.createDirectories(local(path).getParent()); // Iceberg's own way fails when two do it at once
      } catch (IOException failure) {
        throw new UncheckedIOException(failure);
      }
      return org.apache.iceberg.Files.localOutput(local(path).toFile());
    }

    @Override
    public void deleteFile(String path) {
      local(path).toFile().delete();
    }

    @Override
    public Map<String, String> properties() {
      return Map.of();
    }

    @Override
    public void initialize(Map<String, String> properties) {}

    private static Path local(String path) {
      return Path.of(path.replaceFirst("^file:(//)?", ""));
    }
  }
}
