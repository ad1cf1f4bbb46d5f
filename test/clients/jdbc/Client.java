// JDBC: the extended protocol for everything, portals with a fetch size, large objects
// and COPY by the driver's own API.

import java.io.StringReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.security.MessageDigest;
import java.sql.*;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;

public class Client {
	static Connection connect(String... options) throws SQLException {
		Properties p = new Properties();
		p.setProperty("user", System.getenv("PGUSER"));
		if (System.getenv("PGPASSWORD") != null) {
			p.setProperty("password", System.getenv("PGPASSWORD"));
		}
		p.setProperty("sslmode", "verify-full");
		p.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
		for (String o : options) {
			p.setProperty(o.split("=")[0], o.split("=")[1]);
		}
		return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + "/" + System.getenv("PGDATABASE"), p);
	}

	static void show(ResultSet rs) throws SQLException {
		while (rs.next()) {
			StringBuilder line = new StringBuilder();
			for (int i = 1; i <= rs.getMetaData().getColumnCount(); i++) {
				Object v = rs.getObject(i);
				line.append(" | ").append(v instanceof byte[] b ? HexFormat.of().formatHex(b) : v);
			}
			System.out.println(line);
		}
	}

	static void attempt(Connection c, String sql) {
		try (Statement s = c.createStatement()) {
			if (s.execute(sql)) {
				show(s.getResultSet());
			}
			System.out.println(sql + ": " + s.getUpdateCount());
		} catch (SQLException e) {
			System.out.println(sql + ": " + e.getSQLState());
		}
	}

	public static void main(String[] args) throws Exception {
		for (String mode : new String[] {"extended", "simple", "extendedForPrepared"}) {
			System.out.println("queries, " + mode);
			try (Connection c = connect("preferQueryMode=" + mode, "prepareThreshold=2")) {
				queries(c);
			}
		}
		try (Connection c = connect()) {
			System.out.println("rows in pieces");
			c.setAutoCommit(false);
			try (Statement s = c.createStatement()) {
				s.setFetchSize(100);
				int rows = 0;
				try (ResultSet rs = s.executeQuery("SELECT id, name FROM items ORDER BY id")) {
					while (rs.next()) {
						rows++;
						if (rows == 150) { // another statement while the portal is open
							attempt(c, "SELECT 'between'");
						}
					}
				}
				System.out.println(rows);
			}
			c.commit();
			batch(c);
			copy(c);
			largeObjects(c);
			cancel(c);
			c.rollback();
			notifications(c);
			metadata(c);
			refused(c);
		}
	}

	static void queries(Connection c) throws SQLException {
		try (PreparedStatement s = c.prepareStatement("SELECT id, name, price, ratio, made, day, good, data, tags, doc, key FROM items WHERE id = ?")) {
			for (int id : new int[] {5, 7, 5, 7, 5, 7}) { // prepared, then in binary, by the driver's own threshold
				s.setInt(1, id);
				show(s.executeQuery());
			}
		}
		try (PreparedStatement s = c.prepareStatement("SELECT ?::text, decode(?, 'hex'), ?::int[], ?::timestamptz")) {
			s.setString(1, "it's");
			s.setString(2, "00ff");
			s.setArray(3, c.createArrayOf("int4", new Object[] {1, null}));
			s.setTimestamp(4, Timestamp.from(java.time.Instant.ofEpochSecond(0)));
			show(s.executeQuery());
		}
		attempt(c, "SELECT 1; SELECT 2");
		attempt(c, "SELECT nothing");
		attempt(c, "SELECT 1 / 0");
	}

	static void batch(Connection c) throws SQLException {
		System.out.println("batch");
		try (PreparedStatement s = c.prepareStatement("INSERT INTO written (id, name) VALUES (?, ?)")) {
			for (int i = 0; i < 300; i++) {
				s.setInt(1, i);
				s.setString(2, "n" + i);
				s.addBatch();
			}
			System.out.println(Arrays.stream(s.executeBatch()).sum());
		}
		attempt(c, "SELECT count(*), sum(id) FROM written");
		c.rollback();
		try (Statement s = c.createStatement()) {
			s.addBatch("INSERT INTO written (id) VALUES (1)");
			s.addBatch("DELETE FROM customers");
			s.addBatch("INSERT INTO written (id) VALUES (2)");
			s.executeBatch();
		} catch (BatchUpdateException e) {
			System.out.println(e.getSQLState());
		}
		c.rollback();
	}

	static void copy(Connection c) throws Exception {
		System.out.println("copy");
		CopyManager m = c.unwrap(PGConnection.class).getCopyAPI();
		for (String options : new String[] {"", "(FORMAT csv, HEADER)", "(FORMAT binary)"}) {
			ByteArrayOutputStream out = new ByteArrayOutputStream();
			m.copyOut("COPY (SELECT id, name, data, price FROM items ORDER BY id) TO STDOUT " + options, out);
			System.out.println(HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(out.toByteArray())));
			System.out.println(m.copyIn("COPY written FROM STDIN " + options, new ByteArrayInputStream(out.toByteArray())));
		}
		attempt(c, "SELECT count(*), count(name), sum(price) FROM written");
		c.rollback();
		try {
			m.copyIn("COPY written (id) FROM STDIN", new StringReader("x\n"));
		} catch (SQLException e) {
			System.out.println(e.getSQLState());
		}
		c.rollback();
	}

	static void largeObjects(Connection c) throws SQLException {
		System.out.println("large objects");
		LargeObjectManager m = c.unwrap(PGConnection.class).getLargeObjectAPI();
		long oid = m.createLO();
		try (LargeObject o = m.open(oid)) {
			o.write(new byte[100000]);
			o.seek64(99990, LargeObject.SEEK_SET);
			System.out.println(o.tell64() + " " + o.read(100).length + " " + o.size64());
			o.truncate64(10);
			System.out.println(o.size64());
		}
		m.delete(oid);
		c.commit();
		try {
			m.open(oid);
		} catch (SQLException e) {
			System.out.println(e.getSQLState());
		}
		c.rollback();
	}

	static void cancel(Connection c) throws Exception {
		System.out.println("cancel");
		try (Statement s = c.createStatement()) {
			Thread t = new Thread(() -> {
				try {
					Thread.sleep(300);
					s.cancel();
				} catch (Exception e) {
					System.out.println(e);
				}
			});
			t.start();
			s.execute("SELECT pg_sleep(30)");
		} catch (SQLException e) {
			System.out.println(e.getSQLState());
		}
	}

	static void notifications(Connection c) throws SQLException {
		System.out.println("notifications");
		c.setAutoCommit(true);
		attempt(c, "LISTEN news");
		attempt(c, "NOTIFY news, 'to all'");
		PGConnection pg = c.unwrap(PGConnection.class);
		for (var n : pg.getNotifications(5000)) {
			System.out.println(n.getName() + " " + n.getParameter() + " " + (n.getPID() == pg.getBackendPID()));
		}
		attempt(c, "UNLISTEN *");
	}

	static void metadata(Connection c) throws SQLException {
		System.out.println("metadata and settings");
		DatabaseMetaData m = c.getMetaData();
		System.out.println(m.getDatabaseMajorVersion());
		try (ResultSet rs = m.getColumns(null, "public", "items", null)) {
			while (rs.next()) {
				System.out.println(rs.getString("COLUMN_NAME") + " " + rs.getString("TYPE_NAME"));
			}
		}
		try (ResultSet rs = m.getPrimaryKeys(null, "public", "items")) {
			show(rs);
		}
		c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
		attempt(c, "SHOW transaction_isolation");
		c.setClientInfo("ApplicationName", "changed");
		attempt(c, "SHOW application_name");
		System.out.println(c.unwrap(PGConnection.class).getParameterStatus("application_name"));
	}

	static void refused(Connection c) throws SQLException {
		System.out.println("refused in a transaction");
		c.setAutoCommit(false);
		attempt(c, "INSERT INTO written (id) VALUES (1)");
		Savepoint s = c.setSavepoint();
		attempt(c, "DELETE FROM customers");
		attempt(c, "SELECT 1");
		c.rollback(s);
		attempt(c, "SELECT count(*) FROM written");
		attempt(c, "DELETE FROM customers");
		c.rollback();
		attempt(c, "SELECT count(*) FROM written");
	}
}
