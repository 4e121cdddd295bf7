package cli

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/retention"
	"github.com/backsnap/kubectl-backsnap/internal/status"
)

//go:embed status.html.tmpl
var pageText string

var page = template.Must(template.New("status").Parse(pageText))

// mostCalendars bounds the page: of clusters with more apps the worst have
// their calendars, and all stand in the table.
const mostCalendars = 200

// pageDoc is what the page shows. html/template escapes all of it.
type pageDoc struct {
	Context, Time, Summary string
	Apps                   []pageApp
	Trends                 []pageTrend
	Omitted                int // calendars
	Legend                 []string
}

type pageApp struct {
	Namespace, Name, State, Class, Reason, Do string
	Good, Copy, Proof, Next, Goal             string
	Volumes                                   []pageVolume
	Days                                      []pageDay
	Months                                    []pageLabel
	CalendarText                              string
}

type pageVolume struct{ Claim, Size, State, Class, Good, Copy, Reason string }

// pageDay is one square of a calendar, by its place in the drawing.
type pageDay struct {
	X, Y         int
	Glyph, Class string
	Title        string
}

// pageLabel is a word above a calendar.
type pageLabel struct {
	X    int
	Text string
}

// pageTrend is a line of one value a day.
type pageTrend struct {
	Name, Points, First, Last string
	Max                       int
}

// square is the width and height of a day, and what lies between two.
const square = 16

// writeHTML writes one page without a script, in which nothing is loaded.
func writeHTML(w io.Writer, r status.Report, context string) error {
	doc := pageDoc{Context: context, Time: r.Now.UTC().Format("2006-01-02 15:04 UTC"), Legend: glyphLegend, Summary: summaryText(r)}
	for i, a := range r.Apps {
		one := pageApp{
			Namespace: a.Namespace, Name: a.Name, State: string(a.State), Class: strings.ToLower(string(a.State)), Reason: a.Reason, Do: a.Do,
			Good: ago(a.LastGood, r.Now), Copy: ago(a.LastCopy, r.Now), Proof: ago(a.LastProof, r.Now), Next: "-", Goal: goalText(a.Goal),
		}
		if !a.Next.IsZero() {
			one.Next = "in " + ago(r.Now, a.Next)
		}
		for _, v := range a.Volumes {
			if len(a.Volumes) == 1 {
				v.Reason = "" // it is the app's
			}
			one.Volumes = append(one.Volumes, pageVolume{v.Claim, size(v.Size), string(v.State), strings.ToLower(string(v.State)), ago(v.LastGood, r.Now), ago(v.LastCopy, r.Now), v.Reason})
		}
		if i < mostCalendars && len(a.Points) > 0 {
			one.draw(a.Calendar(r.Zone, r.Now))
		}
		doc.Apps = append(doc.Apps, one)
	}
	doc.Omitted = max(len(r.Apps)-mostCalendars, 0)
	doc.Trends = trends(r)
	if err := page.Execute(w, doc); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// glyphClasses are the classes of the style sheet.
var glyphClasses = map[status.Glyph]string{
	status.Nothing: "nothing", status.Broken: "broken", status.Crashed: "crashed", status.Inside: "inside",
	status.Safe: "safe", status.ByWeek: "safe", status.ByMonth: "safe",
}

func (p *pageApp) draw(c status.Calendar) {
	months, _ := c.Header()
	for week, name := range months {
		if name != "" {
			p.Months = append(p.Months, pageLabel{X: week*square + 28, Text: name})
		}
	}
	for i, g := range c.Days {
		if g == status.Tomorrow {
			continue
		}
		day := c.Monday.AddDate(0, 0, i)
		p.Days = append(p.Days, pageDay{X: i/7*square + 28, Y: i%7*square + 16, Glyph: string(rune(g)), Class: glyphClasses[g], Title: day.Format("Mon 2006-01-02")})
	}
	p.CalendarText = calendarText(c)
}

// trends are, for each day of the calendars, how many apps had a restore point
// of that day, and how many one that is off-site.
func trends(r status.Report) []pageTrend {
	const days = status.Weeks * 7
	begin := r.Now.Add(-days * 24 * time.Hour)
	var good, off [days]int
	for _, a := range r.Apps {
		var had, away [days]bool
		for _, p := range a.Points {
			if i := int(p.Cut.Sub(begin) / (24 * time.Hour)); p.State == retention.Good && !p.Cut.Before(begin) && i < days {
				had[i], away[i] = true, away[i] || p.Copied
			}
		}
		for i := range days {
			good[i] += one(had[i])
			off[i] += one(away[i])
		}
	}
	first, last := begin.UTC().Format(time.DateOnly), r.Now.UTC().Format(time.DateOnly)
	return []pageTrend{
		{Name: "Apps with a restore point of that day", Points: polyline(good[:]), First: first, Last: last, Max: slices.Max(good[:])},
		{Name: "Apps with an off-site copy of that day", Points: polyline(off[:]), First: first, Last: last, Max: slices.Max(off[:])},
	}
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// polyline are the values as points in a drawing of 332 by 60.
func polyline(values []int) string {
	top := max(slices.Max(values), 1)
	var points []string
	for i, v := range values {
		points = append(points, fmt.Sprintf("%d,%d", i*4, 58-v*56/top))
	}
	return strings.Join(points, " ")
}
