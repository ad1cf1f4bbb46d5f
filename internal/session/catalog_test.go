package session

import (
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/mask"
)

func TestASnapshotIsSharedWhileItHolds(t *testing.T) {
	c, db := newCatalogs(), databaseKey{"orders-db", "10.20.0.5:5432", "shop"}
	old, young := &mask.Catalog{}, &mask.Catalog{}
	now := time.Now()
	want := func(when string, age time.Duration, catalog *mask.Catalog) {
		t.Helper()
		s, ok := c.recent(db, age)
		if ok != (catalog != nil) || ok && s.catalog != catalog {
			t.Errorf("%s: got %p, %t; want %p", when, s.catalog, ok, catalog)
		}
	}
	want("at first", catalogAge, nil)
	c.put(db, snapshot{old, now.Add(-2 * time.Second)})
	want("for a session that is new", catalogAge, old)
	want("for one that needs a younger one", catalogPause, nil)
	want("for one that needs to read it itself", 0, nil)
	c.put(db, snapshot{young, now})
	c.put(db, snapshot{old, now.Add(-time.Second)})
	want("when a slow reader comes late", catalogAge, young)
	c.forget(db)
	want("after DDL", catalogAge, nil)
	c.put(db, snapshot{young, now})
	want("when one was read before the DDL", catalogAge, nil)
	if _, ok := c.recent(databaseKey{"orders-db", "10.20.0.5:5432", "other"}, catalogAge); ok {
		t.Error("it is another database's as well")
	}
}
