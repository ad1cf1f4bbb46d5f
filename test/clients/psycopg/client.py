"""psycopg 3: parameters apart from the text, binary, pipelines."""

import hashlib
import logging
import threading

import psycopg

# Whether a pipeline that fails also logs that is a matter of time.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)
conn = psycopg.connect("", autocommit=True)
COLUMNS = "id, name, price, ratio, made, day, good, data, tags, doc, key"

print("parameters")
for binary in (False, True):
    cur = conn.cursor(binary=binary)
    cur.execute(f"SELECT {COLUMNS} FROM items WHERE id = ANY(%s) ORDER BY id", ([5, 7],))
    for row in cur:
        print(row)
    cur.execute("SELECT %s::text, %b::bytea, %t::int, %s::int[]", ("it's", b"\x00\xff", 42, [1, None]))
    print(cur.fetchone())
for _ in range(8):  # prepared from the fifth on
    cur = conn.execute("SELECT name FROM items WHERE id = %s", (3,))
print(cur.fetchone())

print("pipeline")
with conn.pipeline() as pipeline:
    cursors = [conn.execute("SELECT id, name FROM items WHERE id = %s", (n,)) for n in (1, 2, 3)]
    pipeline.sync()
    print([c.fetchone() for c in cursors])
try:
    with conn.pipeline() as pipeline:
        first = conn.execute("SELECT 'first'")
        pipeline.sync()
        refused = conn.execute("DELETE FROM customers WHERE id = %s", (1,))
        skipped = conn.execute("SELECT 'skipped'")
        pipeline.sync()
        last = conn.execute("SELECT 'last'")
except psycopg.Error as e:
    print(e.sqlstate)
print(first.fetchone(), conn.info.transaction_status.name)

print("many")
with conn.transaction():
    conn.cursor().executemany("INSERT INTO written (id, name) VALUES (%s, %s)", [(n, f"n{n}") for n in range(300)])
    print(conn.execute("SELECT count(*), sum(id) FROM written").fetchone())
    raise psycopg.Rollback

print("cursor of the server")
with conn.transaction(), conn.cursor("named", scrollable=True) as named:
    named.itersize = 50
    named.execute("SELECT id FROM items WHERE id <= %s ORDER BY id", (120,))
    print(sum(row[0] for row in named))
    named.scroll(10, mode="absolute")
    print(named.fetchmany(3))
cur = conn.cursor()
print(sum(row[0] for row in cur.stream("SELECT id FROM items WHERE id <= %s", (700,))))

print("copy")
for options in ("", "(FORMAT csv, HEADER)", "(FORMAT binary)"):
    with cur.copy(f"COPY (SELECT id, name, data, price FROM items ORDER BY id) TO STDOUT {options}") as copy:
        print(options, hashlib.sha256(b"".join(bytes(part) for part in copy)).hexdigest())
with cur.copy("COPY (SELECT id, name FROM items WHERE id < 9 ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
    copy.set_types(["int4", "text"])
    print(list(copy.rows()))
with conn.transaction():
    with cur.copy("COPY written (id, name, data) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "text", "bytea"])
        for n in range(1000):
            copy.write_row((n, f"ß{n}" if n % 3 else None, bytes([n % 256])))
    with cur.copy("COPY written (id, name) FROM STDIN") as copy:
        copy.write_row((2001, "tab\tand\\"))
    with cur.copy("COPY written (id, name) FROM STDIN (FORMAT csv)") as copy:
        copy.write('3001,"a ""b"""\n')
    print(conn.execute("SELECT count(*), md5(string_agg(id || coalesce(name, '-') || coalesce(data, '-'), ',' ORDER BY id)) FROM written").fetchone())
    raise psycopg.Rollback
try:
    with cur.copy("COPY written (id) FROM STDIN") as copy:
        copy.write("x\n")
except psycopg.Error as e:
    print(e.sqlstate)
try:
    with cur.copy("COPY written (id) FROM STDIN") as copy:
        copy.write("1\n")
        raise KeyError("the client gives up")
except psycopg.errors.QueryCanceled as e:
    print(e, conn.info.transaction_status.name)

print("cancel")
timer = threading.Timer(0.3, conn.cancel)
timer.start()
try:
    conn.execute("SELECT pg_sleep(30)")
except psycopg.errors.QueryCanceled as e:
    print(e.sqlstate)
timer.join()

print("notifications")
told = []
conn.add_notify_handler(told.append)
conn.execute("LISTEN news")
conn.execute("SELECT pg_notify('news', %s)", ("to all",))
while not told:
    conn.execute("SELECT 1")
print([(n.channel, n.payload, n.pid == conn.info.backend_pid) for n in told])

print("settings")
conn.execute("SET TimeZone TO 'Asia/Tokyo'")
print(conn.info.timezone, conn.info.parameter_status("TimeZone"), conn.info.parameter_status("server_encoding"), conn.info.encoding)
print(conn.execute("SELECT made FROM items WHERE id = 1").fetchone())
print(conn.execute("SELECT pg_backend_pid()").fetchone()[0] == conn.info.backend_pid)
conn.add_notice_handler(lambda d: print(d.severity, d.message_primary))
conn.execute("DO $$BEGIN RAISE NOTICE 'note %', 42; END$$")

print("refused in a transaction")
conn.autocommit = False
conn.execute("INSERT INTO written (id) VALUES (1)")
try:
    with conn.transaction():
        conn.execute("DELETE FROM customers WHERE id = %s", (1,))
except psycopg.errors.InsufficientPrivilege as e:
    print(e.sqlstate, conn.info.transaction_status.name)
print(conn.execute("SELECT count(*) FROM written").fetchone())
for statement in ("DELETE FROM customers", "SELECT 1"):
    try:
        conn.execute(statement)
    except psycopg.Error as e:
        print(statement, e.sqlstate, conn.info.transaction_status.name)
conn.rollback()
print(conn.execute("SELECT count(*) FROM written").fetchone(), conn.info.transaction_status.name)
conn.close()
