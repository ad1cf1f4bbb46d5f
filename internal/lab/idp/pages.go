package idp

import (
	"bytes"
	"html/template"
	"net/http"
)

const (
	loginPath  = "/login"
	devicePath = "/device"

	fieldRequest  = "request"
	fieldUsername = "username"
	fieldPassword = "password"
	fieldUserCode = "user_code"
)

const wrongPassword = "That is not the user name and password of anybody here. Try again."

// pages are what a person sees.
type pages struct {
	store    *storage
	callback func(requestID string) string
}

// view is what a page shows.
type view struct {
	Title, Problem, Notice string
	Request                string // of a login
	AskCode                bool
	UserCode, Username     string
	Finished               bool
}

func (p *pages) showLogin(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get(fieldRequest)
	request, err := p.store.AuthRequestByID(r.Context(), id)
	if err != nil {
		p.show(w, http.StatusNotFound, view{Title: "Log in", Problem: err.Error(), Finished: true})
		return
	}
	p.show(w, http.StatusOK, view{Title: "Log in to " + request.GetClientID(), Request: id})
}

func (p *pages) login(w http.ResponseWriter, r *http.Request) {
	if !p.parse(w, r) {
		return
	}
	id, name := r.PostForm.Get(fieldRequest), r.PostForm.Get(fieldUsername)
	request, err := p.store.AuthRequestByID(r.Context(), id)
	if err != nil {
		p.show(w, http.StatusNotFound, view{Title: "Log in", Problem: err.Error(), Finished: true})
		return
	}
	user, ok := p.store.checkPassword(name, r.PostForm.Get(fieldPassword))
	if !ok {
		p.show(w, http.StatusUnauthorized, view{
			Title: "Log in to " + request.GetClientID(), Problem: wrongPassword, Request: id, Username: name,
		})
		return
	}
	if err := p.store.logIn(id, user.Subject); err != nil {
		p.show(w, http.StatusNotFound, view{Title: "Log in", Problem: err.Error(), Finished: true})
		return
	}
	http.Redirect(w, r, p.callback(id), http.StatusSeeOther)
}

func (p *pages) showDevice(w http.ResponseWriter, r *http.Request) {
	p.show(w, http.StatusOK, view{Title: "Connect a device", AskCode: true, UserCode: r.URL.Query().Get(fieldUserCode)})
}

func (p *pages) device(w http.ResponseWriter, r *http.Request) {
	if !p.parse(w, r) {
		return
	}
	page := view{
		Title: "Connect a device", AskCode: true,
		UserCode: r.PostForm.Get(fieldUserCode), Username: r.PostForm.Get(fieldUsername),
	}
	user, ok := p.store.checkPassword(page.Username, r.PostForm.Get(fieldPassword))
	if !ok {
		page.Problem = wrongPassword
		p.show(w, http.StatusUnauthorized, page)
		return
	}
	if err := p.store.approve(page.UserCode, user.Subject); err != nil {
		page.Problem = err.Error()
		p.show(w, http.StatusBadRequest, page)
		return
	}
	p.show(w, http.StatusOK, view{
		Title: "Connect a device", Finished: true, Notice: "The device is connected. You can close this page.",
	})
}

func (p *pages) parse(w http.ResponseWriter, r *http.Request) bool {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "the form can't be read: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func (p *pages) show(w http.ResponseWriter, status int, v view) {
	var page bytes.Buffer
	if err := pageTemplate().Execute(&page, v); err != nil {
		http.Error(w, "the page can't be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	// No form-action: browsers apply it to the redirect after the form too, and that
	// leads to the client.
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w) // the browser may have gone
}

func pageTemplate() *template.Template {
	return template.Must(template.New("page").Parse(pageText))
}

const pageText = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 22rem; margin: 15vh auto; padding: 0 1rem; }
label, input, button { display: block; width: 100%; box-sizing: border-box; font: inherit; }
input, button { margin: .25rem 0 1rem; padding: .5rem; }
.problem { color: #b00020; }
</style>
</head>
<body>
<h1>{{.Title}}</h1>
{{with .Problem}}<p class="problem" role="alert">{{.}}</p>{{end}}
{{with .Notice}}<p>{{.}}</p>{{end}}
{{if not .Finished}}<form method="post">
{{with .Request}}<input type="hidden" name="request" value="{{.}}">{{end}}
{{if .AskCode}}<label for="user_code">Code that the device shows</label>
<input id="user_code" name="user_code" value="{{.UserCode}}" autocomplete="off" required>{{end}}
<label for="username">User name</label>
<input id="username" name="username" value="{{.Username}}" autocomplete="username" required>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button id="submit" name="submit" type="submit">Log in</button>
</form>{{end}}
</body>
</html>
`
