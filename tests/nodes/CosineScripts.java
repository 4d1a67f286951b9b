// SPDX-FileCopyrightText: 2026 keytok-haystack contributors
//
// SPDX-License-Identifier: Apache-2.0

import java.io.IOException;
import java.util.Collection;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.plugins.Plugin;
import org.elasticsearch.plugins.ScriptPlugin;
import org.elasticsearch.script.DocReader;
import org.elasticsearch.script.ScoreScript;
import org.elasticsearch.script.ScriptContext;
import org.elasticsearch.script.ScriptEngine;
import org.elasticsearch.script.VectorScoreScriptUtils;
import org.elasticsearch.search.lookup.SearchLookup;

/**
 * Runs one script of Painless, the cosine of a vector, since the module of that language is not published.
 *
 * <p>The cosine is that of Elasticsearch itself, by the class that Painless calls; only the syntax is read here.
 */
public class CosineScripts extends Plugin implements ScriptPlugin {
    private static final Pattern COSINE =
        Pattern.compile("cosineSimilarity\\(params\\.(\\w+), '([^']+)'\\) \\+ 1\\.0");

    @Override
    public ScriptEngine getScriptEngine(Settings settings, Collection<ScriptContext<?>> contexts) {
        return new Engine();
    }

    private static class Engine implements ScriptEngine {
        @Override
        public String getType() {
            return "painless";
        }

        @Override
        public <T> T compile(String name, String source, ScriptContext<T> context, Map<String, String> options) {
            Matcher cosine = COSINE.matcher(source);
            if (context != ScoreScript.CONTEXT || !cosine.matches()) {
                throw new IllegalArgumentException("This node runs the script of a cosine alone, not " + source);
            }
            ScoreScript.Factory factory = (params, lookup) -> new Leaf(params, lookup, cosine.group(1), cosine.group(2));
            return context.factoryClazz.cast(factory);
        }

        @Override
        public Set<ScriptContext<?>> getSupportedContexts() {
            return Set.of(ScoreScript.CONTEXT);
        }
    }

    private record Leaf(Map<String, Object> params, SearchLookup lookup, String vector, String field)
        implements ScoreScript.LeafFactory {
        @Override
        public boolean needs_score() {
            return false;
        }

        @Override
        public boolean needs_termStats() {
            return false;
        }

        @Override
        public ScoreScript newInstance(DocReader reader) throws IOException {
            return new Cosine(this, reader);
        }
    }

    private static class Cosine extends ScoreScript {
        private final Leaf leaf;
        private VectorScoreScriptUtils.CosineSimilarity cosine;

        Cosine(Leaf leaf, DocReader reader) {
            super(leaf.params(), leaf.lookup(), reader);
            this.leaf = leaf;
        }

        @Override
        public double execute(ExplanationHolder explanation) {
            if (cosine == null) { // as Painless does, with the first document
                Object vector = leaf.params().get(leaf.vector());
                cosine = new VectorScoreScriptUtils.CosineSimilarity(this, vector, leaf.field());
            }
            return cosine.cosineSimilarity() + 1.0;
        }
    }
}
