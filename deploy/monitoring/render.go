package monitoring

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// schemaVersion is that of Grafana 9.0; later ones migrate it when they load it.
const schemaVersion = 36

const pageWidth = 24

type object = map[string]any

// JSON renders the page for import and for Grafana's sidecar.
func (d Dashboard) JSON() ([]byte, error) {
	page := object{
		"uid": d.UID, "title": d.Title, "description": d.Description, "tags": []string{"mooring"},
		"schemaVersion": schemaVersion, "version": 1, "editable": true, "graphTooltip": 1,
		"refresh": "30s", "time": object{"from": "now-1h", "to": "now"}, "timezone": "",
		"annotations": object{"list": []any{}}, "links": d.others(), "panels": d.panels(),
		"templating": object{"list": d.variables()},
	}
	b, err := json.MarshalIndent(page, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write dashboard %s: %w", d.UID, err)
	}
	return append(b, '\n'), nil
}

func source() object { return object{"type": "prometheus", "uid": "${datasource}"} }

// others are the links to the other pages, at the top of each.
func (d Dashboard) others() []object {
	var links []object
	for _, l := range []Link{{Title: "Fleet", UID: uidFleet}, toCluster(), toInstance(), toDigest(), toAgent()} {
		if l.UID != d.UID {
			links = append(links, object{"type": "link", "title": l.Title, "url": "/d/" + l.UID, "keepTime": true, "includeVars": true, "icon": "dashboard"})
		}
	}
	return links
}

func (d Dashboard) variables() []object {
	list := []object{{"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "refresh": 1}}
	for _, v := range d.Variables {
		query := fmt.Sprintf("label_values(%s, %s)", v.Metric, v.By)
		o := object{
			"type": "query", "name": v.Name, "label": v.Label, "datasource": source(), "definition": query,
			"query": object{"query": query, "refId": v.Name}, "refresh": 2, "sort": 1, "multi": v.All, "includeAll": v.All,
		}
		if v.All {
			// An absent label is matched, too.
			o["allValue"] = ".*"
			o["current"] = object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}}
		}
		list = append(list, o)
	}
	return list
}

// panels lays the rows out from left to right and downwards.
func (d Dashboard) panels() []object {
	var all []object
	y, id := 0, 0
	for _, r := range d.Rows {
		id++
		all = append(all, object{"id": id, "type": "row", "title": r.Title, "collapsed": false, "panels": []any{}, "gridPos": grid(0, y, pageWidth, 1)})
		y++
		x, high := 0, 0
		for _, p := range r.Panels {
			if x+p.Width > pageWidth {
				x, y, high = 0, y+high, 0
			}
			id++
			all = append(all, p.render(id, x, y))
			x, high = x+p.Width, max(high, p.height())
		}
		y += high
	}
	return all
}

func grid(x, y, w, h int) object { return object{"x": x, "y": y, "w": w, "h": h} }

func (p Panel) height() int {
	if p.Height == 0 {
		return 8
	}
	return p.Height
}

func (p Panel) render(id, x, y int) object {
	defaults := object{"unit": p.unit(), "thresholds": thresholds(p.Steps), "custom": p.custom(), "min": 0}
	if p.Kind != Table {
		defaults["color"] = object{"mode": map[bool]string{true: "thresholds", false: "palette-classic"}[p.Kind == Stat]}
	}
	if p.Top != 0 {
		defaults["max"] = p.Top
	}
	if p.Link != nil && p.Kind != Table {
		defaults["links"] = []object{p.Link.render("__field.labels")}
	}
	o := object{
		"id": id, "type": p.Kind, "title": p.Title, "description": p.Description, "datasource": source(), "gridPos": grid(x, y, p.Width, p.height()),
		"fieldConfig": object{"defaults": defaults, "overrides": p.overrides()}, "options": p.options(), "targets": p.targets(),
	}
	if p.Kind == Table {
		o["transformations"] = p.transformations()
	}
	return o
}

func (p Panel) unit() string {
	if p.Unit == "" {
		return "short"
	}
	return p.Unit
}

// thresholds of no steps colour nothing.
func thresholds(steps []Step) object {
	list := []object{{"color": "green", "value": nil}}
	for i, s := range steps {
		if i == 0 && s.From < -1e17 {
			list[0]["color"] = s.Color
			continue
		}
		list = append(list, object{"color": s.Color, "value": s.From})
	}
	return object{"mode": "absolute", "steps": list}
}

func (p Panel) custom() object {
	switch p.Kind {
	case Lines:
		c := object{
			"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": false,
			"stacking":        object{"mode": map[bool]string{true: "normal", false: "none"}[p.Stack], "group": "A"},
			"thresholdsStyle": object{"mode": map[bool]string{true: "line", false: "off"}[len(p.Steps) > 0]},
		}
		if p.Stack {
			c["fillOpacity"] = 40
		}
		return c
	case Table:
		return object{"align": "auto", "filterable": true}
	}
	return object{}
}

func (p Panel) options() object {
	switch p.Kind {
	case Lines:
		return object{
			"legend":  object{"displayMode": "table", "placement": "bottom", "calcs": []string{"lastNotNull", "max"}},
			"tooltip": object{"mode": "multi", "sort": "desc"},
		}
	case Stat:
		return object{
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
			"colorMode":     "value", "graphMode": "area", "textMode": "auto", "orientation": "auto", "justifyMode": "auto",
		}
	case Heat:
		return object{
			"calculate": false, "cellGap": 1, "yAxis": object{"unit": p.unit(), "axisPlacement": "left"}, "rowsFrame": object{"layout": "auto"},
			"color":   object{"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "scale": "exponential", "fill": "dark-orange", "reverse": false},
			"tooltip": object{"show": true, "yHistogram": false}, "legend": object{"show": true}, "filterValues": object{"le": 1e-9},
		}
	}
	return object{"showHeader": true}
}

func refID(i int) string { return string(rune('A' + i)) }

func (p Panel) targets() []object {
	var list []object
	for i, query := range p.Queries {
		t := object{"refId": refID(i), "datasource": source(), "expr": query.Expr, "editorMode": "code", "legendFormat": query.Legend, "range": true, "instant": false}
		switch p.Kind {
		case Table:
			t["format"], t["instant"], t["range"], t["legendFormat"] = "table", true, false, ""
		case Heat:
			t["format"] = "heatmap"
		}
		list = append(list, t)
	}
	return list
}

// transformations join a table's queries by their labels and name the columns.
func (p Panel) transformations() []object {
	hidden := object{"Time": true}
	for _, h := range p.Hide {
		hidden[h] = true
	}
	names := object{}
	for i, query := range p.Queries {
		value := "Value #" + refID(i)
		if len(p.Queries) == 1 {
			value = "Value"
		}
		if query.Legend == "" {
			hidden[value] = true
		}
		names[value] = query.Legend
	}
	return []object{
		{"id": "merge", "options": object{}},
		{"id": "organize", "options": object{"excludeByName": hidden, "indexByName": object{}, "renameByName": names}},
	}
}

// overrides give a table's columns their units, colours and links.
func (p Panel) overrides() []object {
	list := []object{}
	if p.Kind != Table {
		return list
	}
	for _, query := range p.Queries {
		if query.Legend == "" {
			continue
		}
		properties := []object{{"id": "unit", "value": query.Unit}}
		if len(query.Steps) > 0 {
			properties = append(properties, object{"id": "thresholds", "value": thresholds(query.Steps)},
				object{"id": "custom.displayMode", "value": "color-text"})
		}
		list = append(list, object{"matcher": object{"id": "byName", "options": query.Legend}, "properties": properties})
	}
	if p.Link != nil {
		for _, variable := range slices.Sorted(maps.Keys(p.Link.Vars)) {
			list = append(list, object{
				"matcher":    object{"id": "byName", "options": p.Link.Vars[variable]},
				"properties": []object{{"id": "links", "value": []object{p.Link.render("__data.fields")}}},
			})
		}
	}
	return list
}

// render writes a link whose variables are filled from the labels in scope.
func (l Link) render(scope string) object {
	query := []string{"${datasource:queryparam}", "${__url_time_range}"}
	for _, variable := range slices.Sorted(maps.Keys(l.Vars)) {
		query = append(query, fmt.Sprintf("var-%s=${%s.%s:percentencode}", variable, scope, l.Vars[variable]))
	}
	return object{"title": "Open " + l.Title, "url": "/d/" + l.UID + "?" + strings.Join(query, "&")}
}
