-- Every type of DuckDB that is hard to carry, six values each; the first row is NULL throughout.
-- The columns are lists of one length, unnested side by side.
SELECT
    unnest([1, 2, 3, 4, 5, 6]) AS "row",
    unnest([NULL, true, false, true, false, true]) AS "boolean",
    unnest([NULL, -128, 127, 0, 1, -1]::TINYINT[]) AS "tinyint",
    unnest([NULL, 0, 255, 1, 2, 3]::UTINYINT[]) AS "utinyint",
    unnest([NULL, -9223372036854775808, 9223372036854775807, 0, 9007199254740993, -1]::BIGINT[]) AS "bigint",
    unnest([NULL, 0, 18446744073709551615, 1, 9007199254740993, 2]::UBIGINT[]) AS "ubigint",
    unnest([NULL, '-170141183460469231731687303715884105728', '170141183460469231731687303715884105727', '0', '1', '-1']::HUGEINT[])
        AS "hugeint",
    unnest([NULL, '0', '340282366920938463463374607431768211455', '170141183460469231731687303715884105728', '1', '2']::UHUGEINT[])
        AS "uhugeint",
    unnest([
        NULL, '0', '123456789012345678901234567890123456789012345678901234567890',
        '-123456789012345678901234567890123456789012345678901234567890', '1', '-1'
    ]::BIGNUM[]) AS "bignum",
    unnest([NULL, '0.1', 'nan', '-infinity', '-0.0', '3.4028235e38']::FLOAT[]) AS "float",
    unnest([NULL, '0.1', 'nan', 'infinity', '-0.0', '5e-324']::DOUBLE[]) AS "double",
    unnest([NULL, 0.30000000000000004, 1e16, -1.7976931348623157e308, 123456789.125, 1e-7]::DOUBLE[]) AS "finite double",
    unnest([NULL, 1.10, -9.99, 0, 99.99, 0.01]::DECIMAL(4,2)[]) AS "decimal(4,2)",
    unnest([
        NULL, 9999999999999999999999999999.9999999999, -9999999999999999999999999999.9999999999, 0, 1.5, 0.0000000001
    ]::DECIMAL(38,10)[]) AS "decimal(38,10)",
    unnest([NULL, '', 'plain', 'quote " backslash \ comma , apostrophe ''', E'line\nfeed\r\ttab', 'é 漢字 🦆 \u2028']) AS "varchar",
    unnest([NULL, '', ' spaces ', chr(1) || chr(31) || chr(127), 'NULL', '=1+1']) AS "odd varchar",
    unnest([NULL, '', '\x00\xFF\x22', 'text', '\xDE\xAD\xBE\xEF', '\x0A']::BLOB[]) AS "blob",
    unnest([NULL, '0', '1', '0101010101', '00000000', '111111111']::BIT[]) AS "bit",
    unnest([
        NULL, '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff',
        '80000000-0000-0000-0000-000000000000', '12345678-9abc-def0-1234-56789abcdef0', '7fffffff-ffff-ffff-ffff-ffffffffffff'
    ]::UUID[]) AS "uuid",
    unnest([NULL, 'calm', 'with "quotes", comma', '', 'calm', E'line\nfeed']::ENUM('calm', 'with "quotes", comma', '', E'line\nfeed')[])
        AS "enum",
    unnest([NULL, '2024-02-29', '5877642-06-25 (BC)', '5881580-07-10', 'infinity', '-infinity']::DATE[]) AS "date",
    unnest([NULL, '0001-01-01', '9999-12-31', '10000-01-01', '0001-12-31 (BC)', '0044-03-15 (BC)']::DATE[]) AS "date of the ends",
    unnest([NULL, '00:00:00', '24:00:00', '23:59:59.999999', '12:34:56.7', '01:02:03']::TIME[]) AS "time",
    unnest([NULL, '00:00:00', '23:59:59.999999999', '12:34:56.7', '01:02:03', '12:00:00.000000001']::TIME_NS[]) AS "time_ns",
    unnest([NULL, '12:34:56+00', '12:34:56.123456+05:30', '00:00:00-15:59:59', '24:00:00+15:59:59', '01:02:03-07']::TIMETZ[])
        AS "timetz",
    unnest([
        NULL, '2024-02-29 12:34:56.123456', '290309-12-22 (BC) 00:00:00', '294247-01-10 04:00:54.775806', 'infinity', '-infinity'
    ]::TIMESTAMP[]) AS "timestamp",
    unnest([
        NULL, '0001-01-01 00:00:00', '9999-12-31 23:59:59.999999', '10000-01-01 00:00:00.5', '0001-12-31 (BC) 23:59:59', '2024-01-01'
    ]::TIMESTAMP[]) AS "timestamp of the ends",
    unnest([NULL, '2024-02-29 12:34:56', '1969-12-31 23:59:59', '9999-12-31 23:59:59', 'infinity', '-infinity']::TIMESTAMP_S[])
        AS "timestamp_s",
    unnest([NULL, '2024-02-29 12:34:56.789', '1969-12-31 23:59:59.999', '9999-12-31', 'infinity', '-infinity']::TIMESTAMP_MS[])
        AS "timestamp_ms",
    unnest([
        NULL, '2024-02-29 12:34:56.123456789', '1677-09-22 00:00:00', '2262-04-11 23:47:16.854775806', 'infinity', '-infinity'
    ]::TIMESTAMP_NS[]) AS "timestamp_ns",
    unnest([
        NULL, '2024-02-29 12:34:56.123456+05:30', '290309-12-22 (BC) 00:00:00+00', '294247-01-10 04:00:54.775806+00', 'infinity',
        '-infinity'
    ]::TIMESTAMPTZ[]) AS "timestamptz",
    unnest([
        NULL, INTERVAL '1 year 2 months 3 days 04:05:06.789', INTERVAL '-14 months -3 days', to_microseconds(9223372036854775807),
        INTERVAL '0 days', INTERVAL '1 month' - INTERVAL '1 microsecond'
    ]) AS "interval",
    unnest([
        NULL, '{"exact": 1.10, "long": 3.14159265358979323846264338327950288, "big": 123456789012345678901234567890}', 'null',
        '"nan, [1,]"', E'{\n  "pretty": [1,\n 2],\r\n "escape": "\\u0041\\ud83e\\udd86"}', '[1, 2, ]'
    ]::JSON[]) AS "json",
    unnest([NULL, '[NaN]', '{"a": -Infinity, "b": "nan"}', '[]', '"inf"', 'true']::JSON[]) AS "json beyond the standard",
    unnest([NULL, [], [NULL], [1, NULL, 3], [-2147483648], [2147483647]]::INTEGER[][]) AS "integer[]",
    unnest([NULL, [], [NULL], ['', 'a"b', NULL], [E'\n'], ['漢字']]::VARCHAR[][]) AS "varchar[]",
    unnest([NULL, [], ['nan', NULL], ['infinity', '-infinity', '0.1'], ['-0.0'], ['1e16']]::DOUBLE[][]) AS "double[]",
    unnest([NULL, [], ['infinity', NULL], ['0044-03-15 (BC)'], ['2024-02-29 12:34:56'], ['10000-01-01']]::TIMESTAMP[][]) AS "timestamp[]",
    unnest([NULL, [], [[]], [[NULL], NULL], [[1.10], [2.20, 3.30]], [[0]]]::DECIMAL(4,2)[][][]) AS "decimal(4,2)[][]",
    unnest([NULL, [], ['{"a": 1.10}'], [NULL, E'[1,\n2]'], ['"x"'], ['NaN']]::JSON[][]) AS "json[]",
    unnest([NULL, [1, 2, 3], [NULL, NULL, NULL], [-1, 0, 1], [4, NULL, 6], [7, 8, 9]]::INTEGER[3][]) AS "integer[3]",
    unnest([NULL, ['0.1', 'nan'], [NULL, NULL], ['1', '2'], ['-infinity', '0'], ['3', '4']]::FLOAT[2][]) AS "float[2]",
    unnest([
        NULL, {'a': 1, 'with space': 'x', 'quo"te''s': NULL, '漢字': true, 'comma,': [1, 2]},
        {'a': NULL, 'with space': NULL, 'quo"te''s': NULL, '漢字': NULL, 'comma,': NULL},
        {'a': 2, 'with space': '', 'quo"te''s': 0.5, '漢字': false, 'comma,': []}, NULL, NULL
    ]::STRUCT(a INTEGER, "with space" VARCHAR, "quo""te's" DOUBLE, "漢字" BOOLEAN, "comma," INTEGER[])[]) AS "struct",
    unnest([NULL, {'k': 1, 'v': 'x'}, {'k': NULL, 'v': ''}, {'k': 3, 'v': NULL}, NULL, NULL]::STRUCT(k INTEGER, v VARCHAR)[])
        AS "plain struct",
    unnest([
        NULL, MAP {'b': 1.5, 'a': NULL}, MAP {}, MAP {'': 0.1}, MAP {'quo"te': -1}, NULL
    ]::MAP(VARCHAR, DECIMAL(4,1))[]) AS "map",
    unnest([
        NULL, MAP {DATE '2024-02-29': {'x': [1::HUGEINT]}}, MAP {}, MAP {DATE 'infinity': NULL}, MAP {DATE '10000-01-01': {'x': NULL}}, NULL
    ]::MAP(DATE, STRUCT(x HUGEINT[]))[]) AS "map of structs",
    unnest([
        NULL, union_value(number := 1)::UNION(number INTEGER, text VARCHAR, "od'd" DOUBLE[], moment TIMESTAMPTZ), union_value(text := 'a"b')::UNION(number INTEGER, text VARCHAR, "od'd" DOUBLE[], moment TIMESTAMPTZ),
        union_value(number := NULL::INTEGER)::UNION(number INTEGER, text VARCHAR, "od'd" DOUBLE[], moment TIMESTAMPTZ),
        union_value("od'd" := [0.5::DOUBLE])::UNION(number INTEGER, text VARCHAR, "od'd" DOUBLE[], moment TIMESTAMPTZ),
        union_value(moment := TIMESTAMPTZ '2024-02-29 12:00:00+02')::UNION(number INTEGER, text VARCHAR, "od'd" DOUBLE[], moment TIMESTAMPTZ)
    ]) AS "union",
    unnest([
        NULL, [{'m': MAP {1: union_value(n := 1.5::FLOAT)}, 'i': INTERVAL '1 month', 'b': '\xFF'::BLOB, 'z': '101'::BIT}],
        [NULL], [], [{'m': NULL, 'i': NULL, 'b': NULL, 'z': NULL}], NULL
    ]::STRUCT(m MAP(INTEGER, UNION(n FLOAT)), i INTERVAL, b BLOB, z BIT)[][]) AS "everything nested",
    unnest([
        NULL, {'a': 1, 'b': [1, 2]}::VARIANT, 'x"y'::VARIANT, 170141183460469231731687303715884105727::HUGEINT::VARIANT,
        DATE '2024-02-29'::VARIANT, 'nan'::DOUBLE::VARIANT
    ]) AS "variant"
