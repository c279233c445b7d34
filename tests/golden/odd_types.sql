-- Types whose very name differs between the engines: a bare NULL, an empty list, an unnamed struct, a geometry.
SELECT
    NULL AS "null",
    [] AS "empty list",
    MAP {} AS "empty map",
    row(1, 'a"b', DATE '2024-02-29', [NULL]) AS "row",
    GEOMETRY 'POINT (1 2)' AS "geometry"
