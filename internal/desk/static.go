package desk

import (
	"embed"
	"net/http"
)

//go:embed web
var web embed.FS

// routeStatic serves the page's files. They hold nothing that is not public:
// what they show comes from the API.
func routeStatic(mux *http.ServeMux) {
	for pattern, file := range map[string]string{
		"GET /{$}":            "index.html",
		"GET /approvals/{id}": "index.html",
		"GET /app.js":         "app.js",
		"GET /show.js":        "show.js",
		"GET /style.css":      "style.css",
		"GET /icon.svg":       "icon.svg",
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, web, "web/"+file) })
	}
}
