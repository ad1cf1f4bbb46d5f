\set id random(1, 1000)
BEGIN;
SELECT name, price FROM items WHERE id = :id;
INSERT INTO written (id, name, price) VALUES (7, 'bench', :id);
UPDATE written SET name = 'twice' WHERE id = :id + 100000;
END;
