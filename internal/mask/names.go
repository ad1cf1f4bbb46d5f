package mask

import pg_query "github.com/pganalyze/pg_query_go/v6"

// columnName is the name that PostgreSQL gives to an output column without AS
// (FigureColname in parser/parse_target.c). It is certain for columns and plain
// calls; for the rest, whose rules differ between releases, it is inferred, and
// "" where this package doesn't follow the rules.
func columnName(n *pg_query.Node) (name string, inferred bool) {
	name, strength := figure(n)
	if strength == 0 {
		return "?column?", true
	}
	f := n.GetFuncCall()
	certain := n.GetColumnRef() != nil || f != nil && f.Funcformat == pg_query.CoercionForm_COERCE_EXPLICIT_CALL
	return name, !certain
}

// figure returns a name and how good it is: 0 none, 1 a poor one such as a
// type's, 2 a good one.
func figure(n *pg_query.Node) (string, int) {
	switch x := n.GetNode().(type) {
	case nil: // CASE without ELSE
		return "", 0
	case *pg_query.Node_ColumnRef:
		return last(x.ColumnRef.Fields), 2
	case *pg_query.Node_AIndirection:
		for i := len(x.AIndirection.Indirection) - 1; i >= 0; i-- {
			if s := x.AIndirection.Indirection[i].GetString_(); s != nil {
				return s.Sval, 2
			}
		}
		return figure(x.AIndirection.Arg)
	case *pg_query.Node_FuncCall:
		return last(x.FuncCall.Funcname), 2
	case *pg_query.Node_AExpr:
		if x.AExpr.Kind == pg_query.A_Expr_Kind_AEXPR_NULLIF {
			return "nullif", 2
		}
	case *pg_query.Node_TypeCast:
		if name, strength := figure(x.TypeCast.Arg); strength == 2 {
			return name, strength
		}
		return last(x.TypeCast.TypeName.Names), 1
	case *pg_query.Node_CollateClause:
		return figure(x.CollateClause.Arg)
	case *pg_query.Node_SubLink:
		return figureSubLink(x.SubLink)
	case *pg_query.Node_CaseExpr:
		if name, strength := figure(x.CaseExpr.Defresult); strength == 2 {
			return name, strength
		}
		return "case", 1
	case *pg_query.Node_AArrayExpr:
		return "array", 2
	case *pg_query.Node_RowExpr:
		return "row", 2
	case *pg_query.Node_CoalesceExpr:
		return "coalesce", 2
	case *pg_query.Node_MinMaxExpr:
		if x.MinMaxExpr.Op == pg_query.MinMaxOp_IS_LEAST {
			return "least", 2
		}
		return "greatest", 2
	case *pg_query.Node_AConst, *pg_query.Node_ParamRef, *pg_query.Node_BoolExpr, *pg_query.Node_NullTest,
		*pg_query.Node_BooleanTest:
		return "", 0
	case *pg_query.Node_XmlExpr:
		if name := xmlNames[x.XmlExpr.Op]; name != "" {
			return name, 2
		}
	case *pg_query.Node_XmlSerialize:
		return "xmlserialize", 2
	case *pg_query.Node_JsonObjectConstructor:
		return "json_object", 2
	case *pg_query.Node_JsonArrayConstructor, *pg_query.Node_JsonArrayQueryConstructor:
		return "json_array", 2
	case *pg_query.Node_JsonObjectAgg:
		return "json_objectagg", 2
	case *pg_query.Node_JsonArrayAgg:
		return "json_arrayagg", 2
	default:
		return "", 2 // named by rules that aren't followed
	}
	return "", 0
}

// xmlNames are those of XmlExprOp that have one.
var xmlNames = map[pg_query.XmlExprOp]string{
	pg_query.XmlExprOp_IS_XMLCONCAT:  "xmlconcat",
	pg_query.XmlExprOp_IS_XMLELEMENT: "xmlelement",
	pg_query.XmlExprOp_IS_XMLFOREST:  "xmlforest",
	pg_query.XmlExprOp_IS_XMLPARSE:   "xmlparse",
	pg_query.XmlExprOp_IS_XMLPI:      "xmlpi",
	pg_query.XmlExprOp_IS_XMLROOT:    "xmlroot",
}

func figureSubLink(s *pg_query.SubLink) (string, int) {
	switch s.SubLinkType {
	case pg_query.SubLinkType_EXISTS_SUBLINK:
		return "exists", 2
	case pg_query.SubLinkType_ARRAY_SUBLINK:
		return "array", 2
	case pg_query.SubLinkType_EXPR_SUBLINK:
		q := s.Subselect.GetSelectStmt()
		for q != nil && q.Larg != nil {
			q = q.Larg
		}
		if len(q.GetValuesLists()) > 0 {
			return "column1", 2
		}
		if len(q.GetTargetList()) == 0 {
			return "", 2
		}
		if r := q.TargetList[0].GetResTarget(); r.GetName() != "" {
			return r.Name, 2
		} else {
			return figure(r.GetVal())
		}
	}
	return "", 0
}
