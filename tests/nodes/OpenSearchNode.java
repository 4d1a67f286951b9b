// SPDX-FileCopyrightText: 2026 keytok-haystack contributors
//
// SPDX-License-Identifier: Apache-2.0

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.opensearch.Version;
import org.opensearch.common.settings.Settings;
import org.opensearch.http.HttpServerTransport;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.plugins.PluginInfo;

/**
 * One OpenSearch 3 node in this JVM, with the modules that a distribution bundles and this project needs.
 *
 * <p>Arguments are settings, {@code name=value}. System property {@code plugins}: further plugin classes of the class
 * path, separated by commas. Prints {@code READY URL}, and ends when its standard input does.
 */
public class OpenSearchNode extends Node {
    private static final List<String> MODULES = List.of(
        "org.opensearch.transport.Netty4ModulePlugin",
        "org.opensearch.index.mapper.MapperExtrasModulePlugin", // rank_features
        "org.opensearch.painless.PainlessModulePlugin", // scripts, which filters on lists use
        "org.opensearch.index.reindex.ReindexModulePlugin", // _delete_by_query, _update_by_query
        "org.opensearch.analysis.common.CommonAnalysisModulePlugin"); // analyzers such as "english"

    private OpenSearchNode(Settings settings, Path config, List<PluginInfo> plugins) {
        super(InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), config, () -> "node"), plugins, false);
    }

    public static void main(String[] arguments) throws Exception {
        Settings.Builder settings = Settings.builder();
        for (String argument : arguments) {
            String[] pair = argument.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        List<String> classes = new ArrayList<>(MODULES);
        String further = System.getProperty("plugins", "");
        if (!further.isEmpty()) {
            classes.addAll(List.of(further.split(",")));
        }
        List<PluginInfo> plugins = classes.stream()
            .map(name -> new PluginInfo(name, name, "test", Version.CURRENT, "21", name, null, List.of(), false))
            .toList();
        OpenSearchNode node = new OpenSearchNode(settings.build(), Path.of(settings.get("path.home"), "config"), plugins);
        node.start();
        var address = node.injector().getInstance(HttpServerTransport.class).boundAddress().publishAddress();
        System.out.println("READY http://" + address.getAddress() + ":" + address.getPort());
        while (System.in.read() >= 0) {
            // the launcher writes nothing: this returns when the launcher ends, however it ends
        }
        node.close();
        System.exit(0);
    }
}
