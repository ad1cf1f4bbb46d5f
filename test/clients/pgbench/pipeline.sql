\startpipeline
SELECT name FROM items WHERE id = 1;
SELECT name FROM items WHERE id = 2;
INSERT INTO written (id) VALUES (1);
\endpipeline
