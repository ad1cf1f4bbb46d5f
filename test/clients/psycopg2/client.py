"""psycopg2: libpq by its oldest calls, parameters written into the text."""

import hashlib
import io
import select
import threading

import psycopg2
import psycopg2.errors
import psycopg2.extras

conn = psycopg2.connect("")
cur = conn.cursor()

print("simple")
cur.execute("SELECT id, name, price, ratio, made, day, good, data, tags, doc, key FROM items WHERE id IN %s ORDER BY id", ((5, 7),))
for row in cur:
    print([bytes(v) if isinstance(v, memoryview) else v for v in row])
cur.execute("SELECT %s, %s, %s", ("it's", None, b"\x00\xff"))
print([bytes(v) if isinstance(v, memoryview) else v for v in cur.fetchone()])
conn.commit()

print("many")
psycopg2.extras.execute_values(cur, "INSERT INTO written (id, name) VALUES %s", [(n, f"n{n}") for n in range(500)])
cur.execute("SELECT count(*), sum(id) FROM written")
print(cur.fetchone())
conn.rollback()

print("cursor of the server")
with conn.cursor("named", scrollable=True) as named:
    named.itersize = 50
    named.execute("SELECT id FROM items ORDER BY id LIMIT 120")
    print(sum(row[0] for row in named))
    named.scroll(10, mode="absolute")
    print(named.fetchmany(3))
conn.commit()

print("copy")
out = io.StringIO()
cur.copy_expert("COPY (SELECT id, name, tags FROM items WHERE id < 12 ORDER BY id) TO STDOUT", out)
print(repr(out.getvalue()))
out = io.StringIO()
cur.copy_expert("COPY (SELECT id, name, tags FROM items WHERE id < 12 ORDER BY id) TO STDOUT (FORMAT csv, HEADER)", out)
print(repr(out.getvalue()))
binary = io.BytesIO()
cur.copy_expert("COPY (SELECT id, name, data, price FROM items ORDER BY id) TO STDOUT (FORMAT binary)", binary)
print(hashlib.sha256(binary.getvalue()).hexdigest())
binary.seek(0)
cur.copy_expert("COPY written FROM STDIN (FORMAT binary)", binary)
cur.copy_from(io.StringIO("2001\ttext\n2002\t\\N\n"), "written", columns=("id", "name"))
cur.copy_expert("COPY written (id, name) FROM STDIN (FORMAT csv)", io.StringIO('3001,"a ""b"""\n'))
cur.execute("SELECT count(*), md5(string_agg(id || coalesce(name, '-') || coalesce(data, '-'), ',' ORDER BY id)) FROM written")
print(cur.fetchone())
conn.rollback()
try:
    cur.copy_from(io.StringIO("x\n"), "written", columns=("id",))
except psycopg2.Error as e:
    print(e.pgcode)
conn.rollback()

print("large objects")
lo = conn.lobject(0, "wb")
print(lo.write(b"0123456789" * 50000))
print(lo.seek(10), lo.tell(), lo.truncate(100))
lo.close()
lo = conn.lobject(lo.oid, "rb")
print(len(lo.read()), lo.seek(95), lo.read())
lo.unlink()
conn.commit()

print("cancel")
timer = threading.Timer(0.3, conn.cancel)
timer.start()
try:
    cur.execute("SELECT pg_sleep(30)")
except psycopg2.errors.QueryCanceled as e:
    print(e.pgcode)
timer.join()
conn.rollback()

print("notifications")
conn.autocommit = True
cur.execute("LISTEN news")
cur.execute("SELECT pg_notify('news', 'to all')")
while not conn.notifies:
    select.select([conn], [], [], 5)
    conn.poll()
n = conn.notifies.pop()
print(n.channel, n.payload, n.pid == conn.info.backend_pid)

print("settings")
cur.execute("SET TimeZone TO 'Asia/Tokyo'")
cur.execute("SET application_name TO 'changed'")
print(conn.get_parameter_status("TimeZone"), conn.get_parameter_status("application_name"),
      conn.get_parameter_status("server_encoding"), conn.encoding)
cur.execute("SELECT pg_backend_pid()")
print(cur.fetchone()[0] == conn.info.backend_pid)
cur.execute("DO $$BEGIN RAISE NOTICE 'note %', 42; END$$")
print(conn.notices)

print("refused in a transaction")
conn.autocommit = False
cur.execute("INSERT INTO written (id) VALUES (1)")
cur.execute("SAVEPOINT s")
for statement in ("DELETE FROM customers", "SELECT 1", "ROLLBACK TO s", "SELECT count(*) FROM written", "DELETE FROM customers"):
    try:
        cur.execute(statement)
        print(statement, cur.fetchall() if cur.description else "", conn.info.transaction_status)
    except psycopg2.Error as e:
        print(statement, e.pgcode, conn.info.transaction_status)
conn.rollback()
cur.execute("SELECT count(*) FROM written")
print(cur.fetchone())
conn.close()
